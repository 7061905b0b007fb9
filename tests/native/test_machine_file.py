"""What is kept of a machine."""

from pathlib import Path

from cadcpp.runtime.machine_file import MachineFile


def test_what_was_kept_longest_ago_goes_first(tmp_path: Path) -> None:
    file = MachineFile(tmp_path, "facts.json", 2)
    for facts in ("old", "new", "old", "newest"):
        file.keep(facts, facts)
    assert [file.find(facts) for facts in ("old", "new", "newest")] == [(True, "old"), (False, None), (True, "newest")]
    assert MachineFile(tmp_path, "facts.json").find("old") == (True, "old")
