"""Watches a model attend without touching what it computes.

Hooks tell which attention module runs, and while it runs a mode of torch sees the queries, keys and mask that go into
``scaled_dot_product_attention``: after norms, rotations and projections, whatever the family. From them the
probabilities are computed once more, beside the model's own fused kernel, which keeps them to itself.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .compat import compiled
from .families import Family, Kind, family_of, named_modules
from .scores import Seen, Wanted

BESIDE = ("AttnProcessor", "SlicedAttnProcessor", "XFormersAttnProcessor")
"""Processors that never call ``scaled_dot_product_attention``; what they compute is computed once more by one that does."""


@dataclass(frozen=True)
class Call:
    """One run of the model: the arguments of its forward by name."""

    number: int
    arguments: dict[str, Any]
    family: Family

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return self.family.rows(self.arguments)

    @property
    def text(self) -> Any:
        """The encoded texts, (rows, tokens, width), or a list of (tokens, width)."""
        return self.arguments.get("encoder_hidden_states", self.arguments.get("cap_feats"))

    def same_text(self, other: Call) -> bool:
        a, b = ([t] if isinstance(t, torch.Tensor) or t is None else list(t) for t in (self.text, other.text))
        return len(a) == len(b) and all(
            x is y or (x is not None and y is not None and x.shape == y.shape and torch.equal(x, y))
            for x, y in zip(a, b, strict=True)
        )


class Enough(Exception):
    """All that was wanted has been recorded; the rest of the model would be computed for nothing."""


@dataclass(eq=False)
class Recording:
    """What is recorded of one model by one thread, and the layers that the present call still owes."""

    kind: Kind
    thread: int
    waiting: set[str] = field(default_factory=set)
    call: Call | None = None
    elsewhere: int = 0


_RUNNING: WeakKeyDictionary[torch.nn.Module, list[Recording]] = WeakKeyDictionary()
_STOPPING = threading.local()
_LOCK = threading.Lock()


def running(model: torch.nn.Module) -> list[Recording]:
    """What this thread records of a model just now."""
    found = _RUNNING.get(getattr(model, "_orig_mod", model), [])
    return [r for r in found if r.thread == threading.get_ident()]


class _Watch(TorchFunctionMode):
    """Sees the first attention within the block; an IP-Adapter's second one, to its picture, is not asked for."""

    def __init__(self, see: Callable[[Seen], None], output: bool) -> None:
        super().__init__()
        self.see, self.output, self.done = see, output, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.done or func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        self.done = True
        seen = Seen.of(*args, **kwargs)
        if not self.output:  # before the model's own, which an early stop spares
            self.see(seen)
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        self.see(seen._replace(output=out))
        return out


def _beside(module: Any, args: tuple, kwargs: dict) -> None:
    """Attend once more, for the watch alone."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    with torch.no_grad():
        AttnProcessor2_0()(module, *args, **kwargs)


def _unseen(name: str, module: Any) -> RuntimeError:
    processor = getattr(module, "processor", module)
    backend = getattr(processor, "_attention_backend", None)
    return RuntimeError(
        f"attention of {name} was not seen: {type(processor).__name__} (back end {backend or 'default'}, diffusers "
        f"{version('diffusers')}, torch {torch.__version__}) does not call scaled_dot_product_attention. Choose "
        '"native": model.set_attention_backend("native"), or model.set_default_attn_processor() for a UNet'
    )


def choose(model: torch.nn.Module, kind: Kind, layers: str | Sequence[str]) -> dict[str, tuple[str, torch.nn.Module]]:
    """Full name and module of the chosen layers; ``layers`` is a regular expression, or names.

    Raises:
        ValueError: no layer matches, or a name is not one of a layer.
    """
    found = named_modules(model, kind)
    if isinstance(layers, str):
        wanted = {name: m for name, m in found.items() if re.search(layers, name)}
        unknown = [] if wanted else [f"layers={layers!r}"]
    else:
        wanted = {name: found[name] for name in layers if name in found}
        unknown = [n for n in layers if n not in found] or ([] if wanted else ["layers=[]"])
    if unknown:
        raise ValueError(f"{', '.join(unknown)} matches none of: {', '.join(found)}")
    return wanted


@contextmanager
def record(
    model: torch.nn.Module,
    wanted: Wanted,
    layers: str | Sequence[str],
    sink: Callable[[Call, str, Seen, Any], None],
    skip: Callable[[Call], bool] = lambda call: False,
) -> Generator[Recording]:
    """Hand each wanted layer's attention of each call of the model within the block to ``sink``.

    Only calls of the thread that entered the block count; other users of the same model are let be.

    Args:
        sink: takes the call, the layer's name, what was seen, and its :class:`families.Layout`.
        skip: calls that are not to be recorded.

    Raises:
        ValueError: no layer matches, this thread records this kind of this model already, or the attention is of a
            shape that the family does not have. RuntimeError: a layer ran unseen, or did not run at all.
    """
    chosen = choose(model, wanted.kind, layers)
    base: Any = getattr(model, "_orig_mod", model)
    if hasattr(base, "_tome_info"):
        raise ValueError("token merging leaves out pixels: undo it (tomesd.remove_patch) to record attention")
    if any(r.kind == wanted.kind for r in running(base)):
        raise ValueError(f"{wanted.kind}-attention of this model is being recorded already; leave that block first")
    family = family_of(base)
    state = Recording(wanted.kind, threading.get_ident())
    signature = inspect.signature(type(base).forward)
    calls = 0

    def before_model(module: Any, args: tuple, kwargs: dict) -> None:
        nonlocal calls
        if threading.get_ident() != state.thread:
            state.elsewhere += 1
            return
        state.call = None
        arguments = dict(signature.bind(module, *args, **kwargs).arguments)
        call = Call(calls, arguments, family)
        if not skip(call):
            state.call, state.waiting = call, set(chosen)
            calls += 1

    def after_model(module: Any, args: tuple, output: Any) -> None:
        if threading.get_ident() == state.thread and state.call is not None and state.waiting:
            raise RuntimeError(
                f"the model ran, but {', '.join(n for n in chosen if n in state.waiting)} did not: it is compiled or exported "
                f"in a way that leaves its modules out, or a cache of attention spares them; give the plain "
                f"{type(base).__name__}, or switch the cache off"
            )

    with ExitStack() as stack:
        with _LOCK:
            _RUNNING.setdefault(base, []).append(state)
        stack.callback(_RUNNING[base].remove, state)
        if compiled(model):  # compiled code would pass by the hooks
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.callback(base.register_forward_pre_hook(before_model, with_kwargs=True).remove)
        stack.callback(base.register_forward_hook(after_model).remove)
        for short, (full, module) in chosen.items():
            for handle in _watch_module(base, family, state, short, full, module, wanted, sink):
                stack.callback(handle.remove)
        yield state


def _watch_module(
    base: Any,
    family: Family,
    state: Recording,
    short: str,
    full: str,
    module: torch.nn.Module,
    wanted: Wanted,
    sink: Callable[[Call, str, Seen, Any], None],
) -> Iterator[Any]:
    """Hooks that put a watch around each run of an attention module, and take it away even where the run fails."""
    watches: list[_Watch] = []

    def see(seen: Seen) -> None:
        call = state.call
        assert call is not None
        if seen.query.ndim != 4 or len(seen.query) != call.rows:
            raise ValueError(
                f"attention of {short} ran over {len(seen.query)} of the batch's {call.rows} rows: perturbed-attention "
                "guidance or the like is at work; switch it off to record"
            )
        layout = family.layout(base, call.arguments, full, seen.query.shape[2], seen.key.shape[2])
        with torch.no_grad():
            sink(call, short, seen, layout)
        state.waiting.discard(short)
        if getattr(_STOPPING, "model", None) is base and not any(r.waiting for r in running(base)):
            raise Enough

    def before(module: Any, args: tuple, kwargs: dict) -> None:
        if threading.get_ident() != state.thread or state.call is None:
            return
        watch = _Watch(see, wanted.kind == "output")
        if type(getattr(module, "processor", None)).__name__ in BESIDE:
            with watch:
                _beside(module, args, kwargs)
        else:
            watch.__enter__()
            watches.append(watch)

    def after(module: Any, args: tuple, kwargs: dict, output: Any) -> None:
        if threading.get_ident() != state.thread or not watches:
            return
        watch = watches.pop()
        watch.__exit__(None, None, None)
        if output is not None and not watch.done:
            raise _unseen(short, module)

    yield module.register_forward_pre_hook(before, with_kwargs=True)
    yield module.register_forward_hook(after, with_kwargs=True, always_call=True, prepend=True)


@torch.no_grad()
def run_for_attention(model: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
    """Run the model within :func:`record_attention` only as far as the recorded layers, where its output is not needed.

    The maps are those of a full pass; what comes behind the last recorded layer is left out.
    """
    base = getattr(model, "_orig_mod", model)
    if not running(base):
        raise ValueError("nothing is being recorded: call run_for_attention within record_attention")
    stop_when_recorded(base)
    try:
        model(*args, **kwargs)
    except Enough:
        pass
    finally:
        stop_when_recorded(None)


def stop_when_recorded(model: torch.nn.Module | None) -> None:
    """Let this thread's calls of a model end with :class:`Enough` as soon as all wanted layers have run; None ends that."""
    _STOPPING.model = getattr(model, "_orig_mod", model)
