"""Which bytes stay and which are streamed."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cadcpp.gguf.header import Header, Tensor
from cadcpp.residency.layout import ALIGN, CHUNK, HUGE, Extent, Layout, lay_out


def model(n_layers: int = 4, n_bytes: int = 3_000_001, *, experts: bool = False, tied: bool = True) -> Header:
    """A header with tensors laid end to end, as files have them."""
    names = ["token_embd.weight"] + ([] if tied else ["output.weight"]) + ["output_norm.weight"]
    for i in range(n_layers):
        names += [f"blk.{i}.attn_q.weight", f"blk.{i}.ffn_{'up_exps' if experts else 'up'}.weight"]
    tensors, offset = [], 5000
    for name in names:
        size = 2304 if "norm" in name else n_bytes
        tensors.append(Tensor(name, 8, offset, size, (1, 1, 3 if "_exps" in name else 1, 1)))
        offset += -(-size // 32) * 32
    return Header(Path("m.gguf"), offset, {"general.architecture": "llama"}, tuple(tensors), ())


def covered(layout: Layout) -> set[int]:
    """Every 997th byte that some extent covers, so that gaps and overlaps show."""
    extents = [*layout.pinned, *layout.streamed, *layout.sparse]
    marks = [x for e in extents for x in range(-(-e.start // 997) * 997, e.stop, 997)]
    assert len(marks) == len(set(marks)), "extents overlap"
    return set(marks)


@given(st.integers(0, 40_000_000), st.integers(1, 9))
def test_every_tensor_byte_is_in_one_extent(pin_bytes: int, n_layers: int) -> None:
    header = model(n_layers)
    marks = covered(lay_out(header, pin_bytes))
    for t in header.tensors:
        assert marks >= {x for x in range(-(-t.offset // 997) * 997, t.offset + t.n_bytes, 997)}


@given(st.integers(0, 40_000_000))
def test_streamed_ranges_are_whole_pages_and_in_order(pin_bytes: int) -> None:
    streamed = lay_out(model(), pin_bytes).streamed
    assert all(e.start % ALIGN == 0 and e.stop % ALIGN == 0 for e in streamed)
    assert [e.layer for e in streamed] == sorted(e.layer for e in streamed)


def test_what_fits_is_pinned_and_the_rest_streams() -> None:
    header = model(8)
    total = sum(t.n_bytes for t in header.tensors)
    layout = lay_out(header, total // 2)
    assert 0 <= total // 2 - layout.pinned_bytes <= 16 * ALIGN
    assert lay_out(header, header.n_bytes).streamed == ()


def test_layers_stream_alike() -> None:
    layout = lay_out(model(8), 20_000_000)
    sizes = [sum(len(e) for e in layout.streamed if e.layer == i) for i in range(8)]
    assert max(sizes) - min(sizes) <= 2 * ALIGN


def test_experts_are_never_streamed() -> None:
    header = model(experts=True)
    layout = lay_out(header, 0)
    assert layout.expert_bytes == 4 * 3_000_000
    assert layout.streamed_bytes < 4 * 3_000_001
    last = layout.experts[3].extents(2)[0]  # tensors lie end to end
    assert last.stop == max(t.offset + t.n_bytes - 1 for t in header.tensors)


def test_untied_embeddings_are_left_to_faults_and_tied_ones_stay() -> None:
    assert lay_out(model(tied=False), 0).sparse_bytes >= 3_000_001
    assert lay_out(model(tied=True), 0).sparse_bytes == 0


def test_chunks_cover_an_extent() -> None:
    extent = max(lay_out(model(2, 9_000_000), 0).streamed, key=len)
    chunks = list(extent.chunks())
    assert sum(map(len, chunks)) == len(extent) and max(map(len, chunks)) <= CHUNK


@given(st.integers(0, 400_000_000), st.integers(1, 9))
def test_large_layers_stream_in_huge_pages_and_pin_no_more_than_asked(pin_bytes: int, n_layers: int) -> None:
    header = model(n_layers, 20_000_001)
    layout, least = lay_out(header, pin_bytes), lay_out(header, 0).pinned_bytes
    assert layout.align == HUGE
    assert all(e.start % HUGE == 0 and e.stop % HUGE == 0 for e in layout.streamed)
    assert layout.pinned_bytes <= max(pin_bytes, least)
    assert layout.pinned_bytes + layout.streamed_bytes >= sum(t.n_bytes for t in header.tensors)


def test_chunks_are_cut_where_files_are() -> None:
    extent = Extent(0, CHUNK - 100, 3 * CHUNK + 5, 0)
    assert [(c.start, len(c)) for c in extent.chunks()] == [
        (CHUNK - 100, 100),
        (CHUNK, CHUNK),
        (2 * CHUNK, CHUNK),
        (3 * CHUNK, 5),
    ]
