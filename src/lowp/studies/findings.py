"""What a study found, in sentences that say no more than the numbers do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lowp.studies.cases import BOTH, WEIGHTS
from lowp.studies.tables import label, number, span

if TYPE_CHECKING:
    from lowp.studies.results import Row, StudyResult

MODE_WORDS = {WEIGHTS: "weights alone", BOTH: "weights and activations"}


def findings(result: StudyResult) -> list[str]:
    """Return the main findings, most important first."""
    measured = [row for row in result.rows if row.mode != "reference" and row.sqnr_median_db is not None]
    found = [*_losses(result, measured), *_cheapest(result, measured), *_worst_layers(measured)]
    found += [*_unquantized(result), *_failures(result)]
    return found or ["Nothing was measured."]


def keeps_score(row: Row) -> bool:
    """Whether no loss was shown: the paired interval of the change reaches 0 or above."""
    return row.score_change_high is not None and row.score_change_high >= 0


def _losses(result: StudyResult, measured: list[Row]) -> list[str]:
    scored = [row for row in measured if row.score_change_high is not None]
    if not scored:
        return []
    name, reference = result.about["score"], result.rows[0]
    sentences = [
        f"The float32 model has {name} {number(reference.score, 3)} "
        f"({number(reference.score_low, 3)}–{number(reference.score_high, 3)}). "
        f"For {sum(map(keeps_score, scored))} of {len(scored)} format choices this data shows no loss: the 95 % "
        "interval of the change on the same examples reaches 0. A loss smaller than the interval may still be there."
    ]
    for mode, words in MODE_WORDS.items():
        kept = [row for row in scored if row.mode == mode and keeps_score(row)]
        if kept:
            best = min(kept, key=lambda row: (row.bits_per_value, -(row.cosine_mean or 0)))
            sentences.append(
                f"Fewest bits without a shown loss, {words}: {label(best)} at {number(best.bits_per_value, 2)} bits "
                f"per weight, {name} {number(best.score, 3)}, mean cosine with the float32 model's outputs "
                f"{number(best.cosine_mean, 4)}."
            )
    broken = [row for row in scored if row.score is not None and row.score < 0.5 * (reference.score or 0)]
    if broken:
        sentences.append(f"Less than half of the score is left with: {', '.join(map(label, broken))}.")
    return sentences


def _cheapest(result: StudyResult, measured: list[Row]) -> list[str]:
    """Say, per device, which format without a shown loss is cheapest, and whether that is surely less than bfloat16."""
    scored = any(row.score_change_high is not None for row in measured)
    base = next((row for row in measured if row.weights == row.activations == "bfloat16"), None)
    base = base or next((row for row in measured if row.weights == "bfloat16"), None)
    sentences = []
    for device in result.devices:
        able = [row for row in measured if device in row.costs and (keeps_score(row) or not scored)]
        parts = []
        for quantity, unit in (("time", "ms"), ("energy", "mJ")) if able else ():
            best = min(able, key=lambda row: getattr(row.costs[device], quantity).value)
            cost = getattr(best.costs[device], quantity)
            text = f"{quantity} with {label(best)}, {span(cost, 1e3)} {unit}"
            other = getattr(base.costs[device], quantity) if base is not None and device in base.costs else cost
            if other.value > cost.value:
                sure = "the intervals do not overlap" if cost.high < other.low else "the intervals overlap"
                text += f" (bfloat16 {span(other, 1e3)} {unit}; {sure})"
            parts.append(text)
        if parts:
            kept = " among the formats without a shown loss" if scored else ""
            sentences.append(f"Predicted least on {device.upper()}{kept}: {'; '.join(parts)}.")
    return sentences


def _worst_layers(measured: list[Row]) -> list[str]:
    sentences = []
    for field, what in (("sqnr_worst_layer", "weights"), ("activation_sqnr_worst_layer", "inputs")):
        names = Counter(value for row in measured if (value := getattr(row, field)) is not None)
        if names:
            worst, count = names.most_common(1)[0]
            share = f"{count} of {sum(names.values())} cases"
            sentences.append(f"The layer whose {what} suffer most is {worst}: worst of all layers in {share}.")
    return sentences


def _unquantized(result: StudyResult) -> list[str]:
    names = result.about["not_quantized"]
    return [f"Of two or more dimensions, and not quantized: {', '.join(names)}."] if names else []


def _failures(result: StudyResult) -> list[str]:
    return [f"{label(row)}: {row.notes}" for row in result.rows if row.notes]
