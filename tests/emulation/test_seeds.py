"""Seeds of sites: every part counts, reruns repeat, and operands of a product share their signs."""

import hashlib
import itertools

from lowp.emulation.seeds import sign_seed, site_seed

SITE = {"seed": 3, "layer": "a.b", "operation": "linear", "call": 7, "product": "forward", "role": "weight"}


def test_the_definition():
    digest = hashlib.blake2b(b"3\0a.b\0linear\0" + b"7\0forward\0weight", digest_size=8).digest()
    assert site_seed(**SITE) == int.from_bytes(digest, "little")


def test_every_part_counts():
    other = {"seed": 4, "layer": "a.c", "operation": "conv", "call": 8, "product": "grad_input", "role": "gradient"}
    choices = itertools.product(*zip(SITE.values(), other.values(), strict=True))
    seeds = {site_seed(*choice) for choice in choices}
    assert len(seeds) == 2 ** len(SITE)
    assert all(0 <= s < 2**64 for s in seeds)


def test_names_do_not_run_into_each_other():
    assert site_seed(0, "a", "b", 0, "c", "d") != site_seed(0, "ab", "", 0, "c", "d")
    assert site_seed(1, "1", "", 0, "", "") != site_seed(11, "", "", 0, "", "")


def test_signs():
    place = (3, "a.b", "linear", 7, "forward")
    assert sign_seed(*place, "none") is None
    assert sign_seed(*place, "random") == site_seed(*place, "signs")
    assert sign_seed(3, "a.b", "linear", 8, "forward", "random") != sign_seed(*place, "random")
    assert sign_seed(3, "c", "conv", 9, "grad_input", "fixed") == sign_seed(*place, "fixed")
    assert sign_seed(4, "a.b", "linear", 7, "forward", "fixed") != sign_seed(*place, "fixed")
