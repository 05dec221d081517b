"""Recipes as data: what they resolve to, files, hashes and reprs, and what is refused."""

import copy
import json
import re
import tomllib
import warnings

import pytest

from lowp import (
    ArgumentError,
    ArgumentTypeError,
    Block,
    Cast,
    Codebook,
    FileError,
    FormatError,
    PrecisionWarning,
    Recipe,
    Rule,
)
from lowp.emulation.casts import METHODS, merged, settings
from lowp.emulation.recipe import PASSES, as_recipe
from lowp.emulation.recipe_files import from_dict, named, names
from lowp.emulation.report import Report


@pytest.fixture(params=names())
def published(request: pytest.FixtureRequest) -> Recipe:
    return named(request.param)


def quietly(make, *args):
    """Call without the warning that one published recipe gives when its parts are chosen again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        return make(*args)


class TestResolution:
    def test_roles_hold_for_every_pass_and_passes_change_them(self):
        recipe = Recipe(weight="mxfp4", forward={"weight": {"format": "fp8", "scaling": "current"}})
        assert recipe.cast("weight", "forward") == Cast("float8_e4m3fn", scaling="current")
        assert recipe.cast("weight", "grad_input") == recipe.cast("weight") == Cast("mxfp4")
        assert recipe.cast("activation", "forward") == Cast()
        assert not recipe.cast("gradient", "grad_input")

    def test_a_pass_changes_what_it_names_alone(self):
        recipe = Recipe(gradient=Cast("mxfp4", rounding="stochastic"), grad_input={"gradient": {"random_bits": 8}})
        assert recipe.cast("gradient", "grad_input") == Cast("mxfp4", rounding="stochastic_a", random_bits=8)

    def test_later_rules_win(self):
        recipe = Recipe(
            weight="mxfp4",
            rules=[
                Rule("head*", exempt=True),
                {"match": ["head.tied", "x"], "weight": "nvfp4"},
                {"match": "*.mlp.*", "operation": "conv", "grad_input": {"weight": "fp8"}},
                {"match": "a.mlp.b", "grad_weight.activation": "bf16"},
            ],
        )
        assert not recipe.emulates("linear", "head")
        assert recipe.emulates("linear", "head.tied")
        assert recipe.cast("weight", "forward", "head.tied").format == "nvfp4"
        assert recipe.cast("weight", "grad_input", "a.mlp.b", "conv").format == "float8_e4m3fn"
        assert recipe.cast("weight", "grad_input", "a.mlp.b", "linear").format == "mxfp4"
        assert recipe.cast("activation", "grad_weight", "a.mlp.b").format == "bfloat16"
        assert recipe.cast("activation", "forward", "a.mlp.b").format == ""

    def test_operations(self):
        recipe = Recipe(weight="mxfp4", operations=["conv", "elementwise"], primitives=["exp*"], exclude=["exp2"])
        assert recipe.emulates("conv")
        assert not recipe.emulates("linear")
        assert [recipe.covers(p) for p in ("exp", "expm1", "exp2", "add")] == [True, True, False, False]
        assert not Recipe(weight="mxfp4").covers("exp")

    def test_replace(self):
        recipe = Recipe(weight="mxfp4").replace(seed=5, activation="fp8")
        assert (recipe.seed, recipe.cast("weight").format, recipe.cast("activation").format) == (
            5,
            "mxfp4",
            "float8_e4m3fn",
        )
        with pytest.raises(ArgumentError, match=r"argument='wieght' is not known\. Did you mean 'weight'"):
            recipe.replace(wieght="fp8")

    def test_what_stands_for_a_recipe(self, tmp_path):
        recipe = Recipe(weight="mxfp4")
        recipe.save(tmp_path / "mine.toml")
        assert as_recipe(recipe) is recipe
        assert as_recipe({"weight": "mxfp4"}) == recipe
        assert as_recipe(str(tmp_path / "mine.toml")) == as_recipe(tmp_path / "mine.toml") == recipe
        assert as_recipe("MXFP8").name == "mxfp8"
        assert as_recipe("NVFP4-pretraining").name == "nvfp4_pretraining"
        assert as_recipe("posit8").cast("weight", "forward").format == "posit8_es2"
        block = Block("int5", size=24, scale="bfloat16")
        assert as_recipe(block).cast("activation", "forward").format == block.name
        with pytest.raises(ArgumentError, match=r"'quartett' is neither a recipe nor a format. Did you mean 'quartet'"):
            as_recipe("quartett")
        with pytest.raises(ArgumentTypeError, match="recipe=3 must be a Recipe, a name"):
            as_recipe(3)

    def test_formats_without_a_name_of_their_own(self):
        with pytest.raises(FormatError, match="does not lead back"):
            Recipe(weight=Codebook([-1.0, 0.0, 3.0]))
        recipe = Recipe(weight="mxfp4", forward={"weight": "none"}, activation=None, gradient="")
        assert [bool(recipe.cast("weight", product)) for product in PASSES] == [False, True, True]
        assert not recipe.cast("activation", "forward")
        assert not recipe.cast("gradient", "grad_input")

    def test_settings_merge_in_order(self):
        parts = settings("w", "mxfp4"), settings("w", {"hadamard": 32}), settings("w", Cast("fp8", signs="none"))
        assert merged(*parts) == Cast("float8_e4m3fn", hadamard=32, signs="none")


class TestAsData:
    def test_round_trips(self, published, tmp_path):
        for path in (tmp_path / "r.toml", tmp_path / "r.json"):
            published.save(path)
            assert quietly(Recipe.load, path) == published
        assert quietly(from_dict, tomllib.loads(str(published))) == published
        assert quietly(from_dict, json.loads(json.dumps(published.to_dict()))) == published
        assert sorted(p.name for p in tmp_path.iterdir()) == ["r.json", "r.toml"]

    def test_repr_evaluates(self, published):
        known = {"Recipe": Recipe, "Rule": Rule}
        assert quietly(eval, repr(published), known) == published
        assert quietly(eval, repr(Cast("mxfp4", hadamard=32)), {"Cast": Cast}) == Cast("mxfp4", hadamard=32)

    def test_hash_and_copy(self, published):
        again = quietly(from_dict, published.to_dict())
        assert hash(again) == hash(published)
        assert len({again, published, published.replace(seed=1) if published.name != "four_over_six" else again}) <= 2
        assert quietly(copy.deepcopy, published) == published

    def test_it_cannot_be_changed(self):
        with pytest.raises(AttributeError):
            Recipe(weight="mxfp4").seed = 3  # type: ignore[misc]

    def test_rules_and_tables_in_toml(self, tmp_path):
        path = tmp_path / "mine.toml"
        path.write_text(
            'name = "mine"\nseed = 7\noperations = ["linear", "attention"]\nkv_cache = "int8_row"\n'
            'accumulator = { format = "float16", group = 4 }\n[forward.weight]\nformat = "mxfp4"\nhadamard = 32\n'
            '[forward.activation]\nformat = "mxfp4"\nhadamard = 32\n[[rules]]\nmatch = "lm_head"\nexempt = true\n'
            'optional = true\n[[rules]]\nmatch = ["a.*", "b"]\nweight = "nvfp4"\n[rules.grad_input]\ngradient = "fp8"\n'
        )
        recipe = Recipe.load(path)
        assert recipe.cast("kv_cache").format == "int8_row"
        assert recipe.cast("accumulator", "forward").group == 4
        assert recipe.rules[0] == Rule("lm_head", exempt=True, optional=True)
        assert recipe.rules[1].match == ("a.*", "b")
        assert recipe.cast("gradient", "grad_input", "a.x").format == "float8_e4m3fn"
        assert quietly(from_dict, tomllib.loads(str(recipe))) == recipe

    def test_names(self):
        wanted = {
            "bf16", "fp8_transformer_engine", "fp8_current", "fp8_deepseek_v3", "mxfp8", "mxfp4", "mxfp4_sr_rht",
            "nvfp4", "nvfp4_pretraining", "quartet", "quartet2", "four_over_six", "quest", "bitnet_b158", "int8",
            "int4", "lns_madam", "w4a8_zeroquant_fp", "to_fp8_and_back", "gauss_ws",
        }  # fmt: skip
        assert wanted <= set(Recipe.names())
        assert Recipe.names() == tuple(sorted(Recipe.names()))
        with pytest.raises(ArgumentError, match=r"recipe='quartet3' is not known\. Did you mean 'quartet"):
            Recipe.named("quartet3")

    def test_descriptions(self):
        assert Cast("fp8", scaling="delayed").describe() == "float8_e4m3fn, delayed scale"
        assert Cast("mxfp4", reuse=True).describe() == "as rounded forward"
        again = Cast("nvfp4", method="ms_eden", hadamard=128, reuse=True, requantize=True)
        assert again.describe() == "as rounded forward, then nvfp4, ms_eden, hadamard 128"
        assert Cast("fp16", group=4).describe() == "float16, sums of 4"
        full = Cast("int4", "stochastic", "wrap", 8, hadamard=16, signs="none", gradient="clipped")
        words = "int4, stochastic_a, 8 random bits, overflow wrap, hadamard 16, no signs, gradient clipped"
        assert full.describe() == words


class TestCasts:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"format": "mxfp44"}, "format='mxfp44' is not known. Did you mean 'mxfp4'"),
            ({"rounding": "stochastic_d"}, "rounding='stochastic_d' is not known. Did you mean"),
            ({"overflow": "clip"}, "overflow='clip' is not known"),
            ({"method": "qest"}, "method='qest' is not known. Did you mean 'quest'"),
            ({"axis": "contractions"}, "axis='contractions' is not known. Did you mean 'contraction'"),
            ({"signs": "rand"}, "signs='rand' is not known. Did you mean 'random'"),
            ({"scaling": "delay"}, "scaling='delay' is not known. Did you mean 'delayed'"),
            ({"gradient": "clip"}, "gradient='clip' is not known. Did you mean 'clipped'"),
            ({"hadamard": 48}, "hadamard=48 must be 0 or a power of two"),
            ({"hadamard": 1}, "hadamard=1 must be 0 or a power of two"),
            ({"hadamard": 2.0}, "hadamard=2.0 must be an integer"),
            ({"history": 0}, "history=0 must be an integer, at least 1"),
            ({"group": -1}, "group=-1 must be an integer, at least 0"),
            ({"reuse": 1}, "reuse=1 must be True or False"),
            ({"requantize": True}, "it needs reuse=True"),
            ({"random_bits": 33, "rounding": "stochastic"}, "random_bits=33 must be an integer from 1 to 32"),
            ({"scaling": "current"}, "scaling='current' needs a format"),
            ({"method": "quest"}, "method='quest' needs a format"),
            ({"format": "mxfp4", "scaling": "delayed"}, "has scales of its own"),
            ({"format": "fp8", "overflow": "wrap"}, "overflow='wrap' is for integers"),
            ({"format": "if4", "gradient": "clipped"}, "gradient='clipped' needs a range"),
            ({"format": "fp8", "method": "quest"}, "method='quest' is for blocks or rows of integers"),
            ({"format": "nvfp4", "method": "ms_eden"}, "hadamard=0 must be 16 or more"),
            ({"format": "nvfp4", "method": "ms_eden", "hadamard": 8}, "hadamard=8 must be 16 or more"),
            ({"format": "mxfp4", "method": "ms_eden", "hadamard": 32}, "method='ms_eden' is for 'nvfp4'"),
            (
                {"format": "nvfp4", "method": "ms_eden", "hadamard": 32, "rounding": "stochastic"},
                "has a rounding of its own",
            ),
            (
                {"format": "mxfp4", "method": "gauss_noise"},
                "method='gauss_noise' is for blocks, rows or tiles of integers",
            ),
            ({"format": "int4_row", "method": "pow2_ratio"}, "method='pow2_ratio' is for blocks of floats"),
        ],
    )
    def test_refused(self, given, message):
        with pytest.raises((ArgumentError, ArgumentTypeError, FormatError), match=re.escape(message)):
            Cast(**given)

    def test_every_method_has_an_implementation(self):
        from lowp.emulation import methods

        assert set(methods.METHODS) == set(METHODS)

    def test_what_counts_as_a_change(self):
        assert not Cast()
        assert Cast("fp8")
        assert Cast(hadamard=16)
        assert Cast(reuse=True)
        assert Cast("fp8", reuse=True).rotation == (0, "")
        assert Cast("fp8", hadamard=8, reuse=True, requantize=True).rotation == (8, "random")
        assert Cast("int4_row", method="quest").masks
        assert not Cast("int4_row").masks


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"wieght": "mxfp4"}, "'wieght' is not known. Did you mean 'weight'"),
            ({"weight": {"fromat": "mxfp4"}}, "weight.field='fromat' is not known. Did you mean 'format'"),
            ({"weight": {"format": "mxfp5"}}, "weight: format='mxfp5' is not known"),
            ({"weight": 3}, "weight=3 must be the name of a format, a Cast, or a table"),
            ({"forward": {"gradient": "fp8"}}, "forward: role='gradient' is not known"),
            ({"forward": "fp8"}, "forward='fp8' must be a table of roles"),
            ({"seed": -1}, "seed=-1 must be an integer from 0"),
            ({"name": 3}, "name=3 must be a string"),
            ({"operations": ["liner"]}, "operation='liner' is not known. Did you mean 'linear'"),
            ({"operations": "linear"}, "operations='linear' must be a list"),
            ({"exclude": [3]}, "exclude=(3,) must be a list of names"),
            ({"rules": [{"exempt": True}]}, "a rule needs a pattern"),
            ({"rules": [{"match": "a", "exmept": True}]}, "'exmept' is not known. Did you mean 'exempt'"),
            ({"rules": [{"match": "a", "forward.gradient": "fp8"}]}, "role='gradient' is not known"),
            ({"rules": [{"match": "a", "backward.gradient": "fp8"}]}, "product='backward' is not known"),
            ({"rules": [{"match": "a", "exempt": True, "weight": "fp8"}]}, "is exempt and has casts"),
            ({"rules": [{"match": "a", "optional": 1}]}, "optional=1 must be True or False"),
            ({"rules": [3]}, "rules holds 3"),
            ({"rules": [{"match": "", "exempt": True}]}, "must be a pattern over layer names"),
            ({"accumulator": "mxfp4"}, "accumulator='mxfp4': needs a scalar format"),
            ({"elementwise": "int8_row"}, "elementwise='int8_row': needs a scalar format"),
            ({"weight": "uint8"}, "weight='uint8': needs a format with negative numbers"),
            ({"gradient": "float8_e8m0fnu"}, "gradient='float8_e8m0fnu': needs a format with negative numbers"),
            ({"rules": [{"match": "a", "weight": "uint4"}]}, "weight of 'a'='uint4': needs a format with negative"),
            ({"output": {"format": "fp8", "hadamard": 16}}, "output: hadamard=16 is for operands of products"),
            ({"kv_cache": {"format": "fp8", "scaling": "current"}}, "kv_cache: scaling='current' is for operands"),
            ({"optimizer_state": {"format": "int4_row", "method": "quest"}}, "optimizer_state: method='quest' is for"),
            ({"weight": {"format": "fp8", "group": 4}}, "forward.weight: group=4 is for accumulators"),
            ({"weight": {"reuse": True}}, "forward: weight cannot reuse what the forward pass rounded"),
            ({"grad_input": {"gradient": {"reuse": True}}}, "gradient cannot reuse what the forward pass rounded"),
            ({"weight": {"format": "mxfp4", "hadamard": 32}}, "no rotation for activation and hadamard=32"),
            (
                {"grad_input": {"weight": {"reuse": True}, "gradient": {"format": "mxfp4", "hadamard": 32}}},
                "grad_input: hadamard=32 with signs='random' for gradient and no rotation for weight do not cancel",
            ),
            (
                {"rules": [{"match": "a", "forward": {"weight": {"hadamard": 8, "signs": "none"}}}]},
                "forward of 'a': no rotation for activation and hadamard=8 with signs='none' for weight",
            ),
            (
                {"forward": dict.fromkeys(("weight", "activation"), Cast("int4_row", method="quest", hadamard=32))},
                "grad_input must be computed there: give grad_input.weight reuse=true",
            ),
        ],
    )
    def test_with_the_place_named(self, given, message):
        with pytest.raises((ArgumentError, ArgumentTypeError, FormatError), match=re.escape(message)):
            from_dict(given)

    def test_unsigned_formats_where_they_make_sense(self):
        recipe = Recipe(activation="uint8", optimizer_state="bnb_dynamic8_unsigned", weight="int4_g128_asym")
        assert recipe.cast("activation", "forward").format == "uint8"

    def test_a_biased_combination_is_named_once(self):
        with pytest.warns(PrecisionWarning, match="'nvfp4_4over6' chooses between two stochastically") as caught:
            Recipe(gradient=Cast("nvfp4_4over6", rounding="stochastic"))
        assert len(caught) == 1
        assert caught[0].filename == __file__

    @pytest.mark.parametrize(("role", "product"), [("weights", ""), ("weight", "backward")])
    def test_unknown_places(self, role, product):
        with pytest.raises(ArgumentError, match="is not known"):
            Recipe().cast(role, product)

    def test_files(self, tmp_path):
        path = tmp_path / "r.toml"
        with pytest.raises(FileError, match="cannot be read"):
            Recipe.load(path)
        path.write_text("weight = ")
        with pytest.raises(FileError, match="is not valid TOML"):
            Recipe.load(path)
        path.write_text('wheight = "fp8"\n')
        with pytest.raises(ArgumentError, match=re.escape(f"{path}: 'wheight' is not known. Did you mean 'weight'")):
            Recipe.load(path)
        (tmp_path / "r.json").write_text("[]")
        with pytest.raises(ArgumentTypeError, match="a recipe is a table"):
            Recipe.load(tmp_path / "r.json")
        with pytest.raises(ArgumentError, match=r"must end in \.toml or \.json"):
            Recipe().save(tmp_path / "r.yaml")
        with pytest.raises(FileError, match="cannot be written"):
            Recipe().save(tmp_path / "none" / "r.toml")


def test_published_recipes_change_linear_layers(published):
    assert published.emulates("linear", "blocks.0.attn.q")
    assert published.cast("weight", "forward", "blocks.0.attn.q")
    assert published.name in Recipe.names()
    assert all(rule.optional for rule in published.rules)  # they must fit models that have no such layer


def test_report():
    report = Report()
    for _ in range(3):
        report.add("fc", "linear", "forward", "weight", "mxfp4")
    report.add("fc", "linear", "forward", "activation", "mxfp4", count=2)
    report.remark("odd")
    report.remark("odd")
    assert [row.count for row in report.rows] == [3, 2]
    assert report.find(role="weight")[0].cast == "mxfp4"
    assert report.remarks == ["odd (2 times)"]
    assert "layer  operation  product  role        cast   count" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["rows"][0]["layer"] == "fc"
