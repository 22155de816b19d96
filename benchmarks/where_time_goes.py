"""Where the time of one update goes, and of imagining two actions: `python benchmarks/where_time_goes.py`, a part of `make bench`.

Both models, tiny, 4 windows, at 224 and 64 pixels, by torch's profiler: each operation's own time, sorted into kinds. Whatever runs within the
mover's shifts counts as shifts, whatever the optimiser, the clipping of gradients or the averaging of weights calls as theirs; anything else by
its own name. What no operation accounts for is Python and torch's bookkeeping, which the profiler itself makes larger, most of all for small
frames; milliseconds are measured without it. A table goes to stderr, one JSON line to stdout, and that to the section `where_time_goes` of
benchmarks/results.json, unless `--quick`; `--show` prints the table of what was found last.
"""

import re
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from measuring import Facts, by_model, flags, kept, markdown, timed
from torch.profiler import ProfilerActivity, profile, record_function
from variants import KINDS, Variant, each_action, lived

VARIANTS = tuple(Variant(kind, "tiny", side) for side in (224, 64) for kind in KINDS)
ROOT = "all that is measured"
PYTHON, OTHER = "Python and bookkeeping", "other operations"
CALLERS = {  # with all that they call
    "shifts, in frequencies": r"_Shift(Backward)?|aten::_?fft_\w+",
    "optimiser, clipping, averaging": r"Optimizer\..*|aten::_foreach_\w+|aten::_fused_adamw_",
}
NAMES = {  # by its own name, without aten::, leading and trailing _ and what marks it as backward
    "products of matrices": "mm addmm bmm baddbmm matmul linear dot mv addmv",
    "attention": "scaled_dot_product_attention scaled_dot_product_flash_attention_for_cpu",
    "GELU": "gelu",
    "norms": "layer_norm native_layer_norm native_group_norm native_batch_norm",
    "convolutions": "convolution conv2d conv_transpose2d mkldnn_convolution thnn_conv2d slow_conv2d_forward",
    "losses and elementwise": """abs add addcmul amax amin any argsort bitwise_and bitwise_not bitwise_or clamp clamp_min cos cumsum div eq erf exp ge
        gt isfinite le lerp linalg_vector_norm log log_softmax logical_and logical_not logical_or logsumexp lt masked_fill max maximum mean min
        minimum mse_loss mul ne neg norm pow prod reciprocal relu round rsqrt rsub sigmoid sign silu sin softmax sort sqrt square std sub sum tanh
        threshold topk var where __or__ __and__""",
    "copies and shapes": """alias arange as_strided broadcast_tensors cat chunk clone conj constant_pad_nd contiguous copy detach empty empty_like
        empty_strided expand expand_as fill flatten flip full gather index index_put index_select item lift_fresh local_scalar_dense mT movedim
        narrow new_empty new_full new_zeros nonzero numpy_T ones ones_like pad permute repeat repeat_interleave reshape reshape_alias resize
        resolve_conj resolve_neg result_type roll scalar_tensor scatter scatter_add select slice split split_with_sizes squeeze stack t to to_copy
        transpose unbind unflatten unfold unsafe_view unsqueeze view zero zeros zeros_like""",
}
KIND_OF = {name.strip("_"): kind for kind, names in NAMES.items() for name in names.split()}
ORDER = (*CALLERS, *NAMES, OTHER, PYTHON)


def kind_of(names: Sequence[str]) -> str:
    """Of an operation: its own name, then those of what called it, up to the root."""
    for kind, pattern in CALLERS.items():
        if any(re.fullmatch(pattern, name) for name in names):
            return kind
    own = names[0]
    if not own.startswith("aten::"):
        return PYTHON
    name = re.sub(r"_(backward|backward_data|forward)$", "", own.removeprefix("aten::").strip("_")).strip("_")
    return KIND_OF.get(name, OTHER)


def operations(work: Callable[[], Any], times: int) -> list[tuple[str, str, float]]:
    """Kind, name and own time in microseconds of all that `times` calls run."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiled, record_function(ROOT):
        for _ in range(times):
            work()
    found = []
    for event in profiled.events() or []:
        names, above = [event.name], event.cpu_parent
        while above is not None:
            names.append(above.name)
            above = above.cpu_parent
        if names[-1] == ROOT:
            found.append((kind_of(names), event.name, event.self_cpu_time_total))
    return found


def shares(ran: Sequence[tuple[str, str, float]]) -> dict[str, float]:
    """What each kind of operation takes of all of them; they add up to 1."""
    spent = dict.fromkeys(ORDER, 0.0)
    for kind, _, own in ran:
        spent[kind] += own
    return {kind: round(each / sum(spent.values()), 4) for kind, each in spent.items()}


def spent(variant: Variant, threads: int, times: int) -> dict[str, Facts]:
    """Of an update and of imagining both actions: milliseconds, and the share of each kind."""
    run = lived(variant, threads)
    windows, _ = run.learner.choose()
    both = each_action(run)
    works: dict[str, Callable[[], Any]] = {
        "update": lambda: run.learner.update(windows),
        "imagine": lambda: run.world_model.imagine(run.window, both),
    }
    found = {}
    for name, work in works.items():
        work()
        found[name] = {"ms": round(1e3 * statistics.median(timed(work, times)), 1), "shares": shares(operations(work, times))}
    return found


def table(found: dict[str, dict[str, Facts]]) -> str:
    """As it stands in docs/performance.md: a column for each model, side and work; what is nowhere worth 0.5 % is left out."""
    columns = [(Variant.named(name), work, each) for work in ("update", "imagine") for name, works in found.items() for each in (works[work],)]
    words = {"update": "an update", "imagine": "two actions imagined"}
    head = ("what", *(f"{one.kind}, {one.side} px, {words[work]}" for one, work, _ in columns))
    kinds = [kind for kind in ORDER if any(each["shares"][kind] >= 0.005 for *_, each in columns)]
    rows = [(kind, *(f"{100 * each['shares'][kind]:.0f} %" for *_, each in columns)) for kind in kinds]
    return markdown(head, [*rows, ("milliseconds, not profiled", *(f"{each['ms']:.0f}" for *_, each in columns))])


def main() -> None:
    chosen = flags(__doc__, "64 px only, twice", "the table", times=10)
    if chosen.show:
        return print(table(kept("where_time_goes")["models"]))
    torch.set_num_threads(chosen.threads)
    variants = [one for one in VARIANTS if not chosen.quick or one.side == 64]
    models = {one.name: partial(spent, one, chosen.threads, 2 if chosen.quick else chosen.times) for one in variants}
    by_model("where_time_goes", chosen.threads, models, table, not chosen.quick)


if __name__ == "__main__":
    main()
