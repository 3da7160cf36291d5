"""A training's state is on disk whole or not at all, and a damaged or strange one is refused with the remedy."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from damage import flip
from full_disk import files_limited_to
from retrieval.errors import TrainingDiverged, TrainingError
from retrieval.training.state import (
    SavedState,
    has_state,
    load_state,
    optimiser_tensors,
    restore_optimiser,
    save_state,
)
from unprivileged import run_unprivileged

VALUES = {"epoch": 3, "best": float("-inf"), "history": [{"loss": 0.3125, "active": None}]}


def state(seed: int = 0, size: int = 64, **values: Any) -> SavedState:
    drawn = torch.Generator().manual_seed(seed)
    tensors = {
        "network.weight": torch.randn(size, 8, generator=drawn),
        "network.batches": torch.tensor(7),
        "average.weight": torch.randn(size, 8, generator=drawn).to(torch.bfloat16),
        "optimiser.0.step": torch.tensor(5.0),
        "catalogue.negatives": torch.tensor([[1, -1]]),
    }
    return SavedState(tensors, VALUES | values)


def loaded(folder: Path) -> SavedState:
    found = load_state(folder)
    assert found is not None
    return found


def assert_same(one: SavedState, other: SavedState) -> None:
    assert one.values == other.values
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        assert torch.equal(tensor, other.tensors[name]), name


def tensor_file(folder: Path) -> Path:
    (found,) = folder.glob("state-*")
    return found


def change_index(folder: Path, **fields: Any) -> None:
    index = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(index | fields))


# Written and read


def test_a_state_comes_back_bit_by_bit(tmp_path: Path) -> None:
    save_state(tmp_path / "run" / "validation", state())
    assert_same(loaded(tmp_path / "run" / "validation"), state())


def test_there_is_no_state_where_none_was_written(tmp_path: Path) -> None:
    assert load_state(tmp_path / "nothing") is None
    assert not has_state(tmp_path)


def test_the_later_state_counts_and_the_former_is_cleared_away(tmp_path: Path) -> None:
    save_state(tmp_path, state(seed=1))
    save_state(tmp_path, state(seed=2))
    assert_same(loaded(tmp_path), state(seed=2))
    assert len(list(tmp_path.iterdir())) == 2


def test_the_same_state_can_be_written_twice(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    save_state(tmp_path, state(epoch=4))  # the same tensors: the same file
    assert_same(loaded(tmp_path), state(epoch=4))


def test_a_part_has_its_tensors_by_their_own_names() -> None:
    assert sorted(state().part("network")) == ["batches", "weight"]
    assert state().part("optimiser") == {"0.step": torch.tensor(5.0)}
    assert state().part("net") == {}


def test_tensors_are_written_as_they_are_seen_not_as_they_lie(tmp_path: Path) -> None:
    turned = torch.arange(12.0).reshape(3, 4).T
    save_state(tmp_path, SavedState({"network.weight": turned.requires_grad_()}, {}))
    assert torch.equal(loaded(tmp_path).tensors["network.weight"], turned)


# A kill between the two files of a state


def test_a_kill_before_the_index_is_renamed_leaves_the_former_state(tmp_path: Path) -> None:
    """What is on disk at that moment: the next state's tensors, and its index under a name of its own."""
    save_state(tmp_path, state(seed=1))
    save_state(tmp_path / "next", state(seed=2))
    tensor_file(tmp_path / "next").rename(tmp_path / tensor_file(tmp_path / "next").name)
    (tmp_path / "next" / "state.json").rename(tmp_path / "state.json.part")
    assert_same(loaded(tmp_path), state(seed=1))
    save_state(tmp_path, state(seed=3))
    assert_same(loaded(tmp_path), state(seed=3))
    assert len(list(tmp_path.glob("state-*"))) == 1


# No space, no permission


@pytest.mark.parametrize("limit_bytes", [0, 1000, 100_000], ids=["no byte", "half the tensors", "half the index"])
def test_a_disk_that_fills_up_leaves_the_former_state_whole(tmp_path: Path, limit_bytes: int) -> None:
    save_state(tmp_path, state(seed=1))
    before = sorted(path.name for path in tmp_path.iterdir())
    long = state(seed=2, notes="x" * 200_000)
    with files_limited_to(limit_bytes), pytest.raises(TrainingError, match=r"the one before it is whole: .* --resume"):
        save_state(tmp_path, long)
    assert sorted(path.name for path in tmp_path.iterdir()) == before  # half a file would keep the disk full
    assert_same(loaded(tmp_path), state(seed=1))
    save_state(tmp_path, long)
    assert_same(loaded(tmp_path), long)


def test_a_disk_that_fills_up_before_the_first_state_leaves_none(tmp_path: Path) -> None:
    with files_limited_to(1000), pytest.raises(TrainingError, match="cannot be written"):
        save_state(tmp_path, state())
    assert load_state(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o555)
    code = """
from pathlib import Path
from retrieval.training.state import SavedState, save_state
from retrieval.errors import TrainingError
try:
    save_state(Path(sys.argv[1]) / "validation", SavedState({}, {}))
except TrainingError as error:
    print(error)
"""
    done = run_unprivileged(code, tmp_path / "run", timeout_s=120)
    assert done.stdout.startswith(f"checkpoint {tmp_path / 'run' / 'validation'} cannot be written (Permission denied)")


# A state that must not be believed


@pytest.mark.parametrize("part", ["network", "average"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_never_replace_a_good_state(tmp_path: Path, part: str, value: float) -> None:
    save_state(tmp_path, state(seed=1))
    bad = state(seed=2)
    bad.tensors[f"{part}.weight"][3, 4] = value
    with pytest.raises(TrainingDiverged, match="lower --rates or --clip; what was saved before is untouched"):
        save_state(tmp_path, bad)
    assert_same(loaded(tmp_path), state(seed=1))


@pytest.mark.parametrize("at", [0, 3, 40, -100, -1])
def test_a_flipped_byte_in_the_tensors_is_found(tmp_path: Path, at: int) -> None:
    save_state(tmp_path, state())
    flip(tensor_file(tmp_path), at, mask=1)
    with pytest.raises(TrainingError, match=r"state-.* is damaged .* train afresh") as raised:
        load_state(tmp_path)
    assert "\n" not in str(raised.value)


def test_no_flipped_byte_in_the_index_goes_unnoticed(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    index = (tmp_path / "state.json").read_bytes()
    for at in range(len(index)):
        flip(tmp_path / "state.json", at, mask=1)
        with pytest.raises(TrainingError, match=re.escape(str(tmp_path))):
            load_state(tmp_path)
        (tmp_path / "state.json").write_bytes(index)
    assert_same(loaded(tmp_path), state())


def test_tensors_that_are_gone_are_named(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    path = tensor_file(tmp_path)
    path.unlink()
    with pytest.raises(TrainingError, match=f"{path.name} is damaged"):
        load_state(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b'"text"'])
def test_an_index_that_is_none_is_one_line_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(TrainingError, match=rf"state\.json cannot be read .* delete {tmp_path.parent}") as raised:
        load_state(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_state_of_a_newer_version_says_so(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    change_index(tmp_path, format=2)
    with pytest.raises(TrainingError, match="has format 2, this version reads 1; upgrade retrieval-engine"):
        load_state(tmp_path)


def test_a_state_of_a_newer_version_with_other_fields_says_so_too(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"format": 2, "shards": []}')
    with pytest.raises(TrainingError, match="has format 2"):
        load_state(tmp_path)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    """The checksum does not protect from who writes both files; that nothing is ever unpickled does."""
    import hashlib
    import pickle

    save_state(tmp_path, state())
    content = pickle.dumps({"network.weight": 1})
    tensor_file(tmp_path).write_bytes(content)
    change_index(tmp_path, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(TrainingError, match="is damaged"):
        load_state(tmp_path)


# The optimiser


def steps(network: nn.Module, optimiser: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        optimiser.zero_grad()
        network(x).square().sum().backward()
        optimiser.step()


def two_rates(network: nn.Linear) -> torch.optim.AdamW:
    return torch.optim.AdamW([{"params": [network.weight], "lr": 0.1}, {"params": [network.bias], "lr": 0.01}])


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_an_optimiser_that_was_put_back_takes_the_same_steps(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    optimiser = two_rates(network)
    steps(network, optimiser, range(3))
    saved = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    saved |= {f"optimiser.{name}": tensor for name, tensor in optimiser_tensors(optimiser).items()}
    save_state(tmp_path, SavedState(saved, {}))
    steps(network, optimiser, range(3, 6))

    other = nn.Linear(3, 2)
    put_back = two_rates(other)
    other.load_state_dict(loaded(tmp_path).part("network"))
    restore_optimiser(put_back, loaded(tmp_path).part("optimiser"))
    steps(other, put_back, range(3, 6))

    assert all(torch.equal(one, two) for one, two in zip(weights(network), weights(other), strict=True))


def test_an_optimiser_that_took_no_step_has_nothing_to_save() -> None:
    assert optimiser_tensors(two_rates(nn.Linear(3, 2))) == {}
