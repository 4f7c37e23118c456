"""Which runs share a cell: only those that differ in nothing but the seed."""

import pytest

from fedagg.errors import ConfigError
from fedagg.report import report
from fedagg.report.grouping import Note, flatten, group_runs
from fedagg.results import find_runs


def grouped(path):
    groups, notes = group_runs(find_runs(path))
    return groups, [str(note) for note in notes]


def cells(group):
    return {at: [run.seed for run in runs] for at, runs in group.cells.items()}


def test_seeds_share_a_cell_also_where_other_keys_repeat_them(tmp_path, make_run):
    for seed in (10, 9, 0):
        config = {"participation": {"seed": seed}, "strategy": {"seed": seed, "rule": "krum"}}
        make_run(tmp_path / str(seed), "krum", "alie", seed, config=config)
    (group,), notes = grouped(tmp_path)
    assert cells(group) == {("krum", "alie"): [0, 9, 10]}
    assert (group.title, notes) == ("", [])


def test_a_second_seed_that_goes_its_own_way_is_a_setting(tmp_path, make_run):
    for data_seed in (0, 1):
        make_run(tmp_path / str(data_seed), seed=0, config={"data": {"seed": data_seed}})
    groups, _ = grouped(tmp_path)
    assert [group.title for group in groups] == ["data.seed=0", "data.seed=1"]


def test_settings_are_told_apart_and_ordered_as_numbers(tmp_path, make_run):
    for alpha in (10.0, 0.5, 2.0):
        make_run(tmp_path / str(alpha), config={"partition": {"alpha": alpha, "min_size": 1}})
    groups, notes = grouped(tmp_path)
    assert [group.title for group in groups] == ["partition.alpha=0.5", "partition.alpha=2.0", "partition.alpha=10.0"]
    assert notes == []


def test_labels_name_a_setting_before_its_keys_do(tmp_path, make_run):
    for data, path, rounds in (("digits", "a", 10), ("mnist", "b", 20)):
        for alpha in (0.1, 0.5):
            config = {"data": {"path": path}, "partition": {"alpha": alpha}, "rounds": rounds}
            make_run(tmp_path / f"{data}{alpha}", label={"data": data}, config=config)
    groups, notes = grouped(tmp_path)
    assert [group.title for group in groups] == [
        "data=digits, partition.alpha=0.1",
        "data=digits, partition.alpha=0.5",
        "data=mnist, partition.alpha=0.1",
        "data=mnist, partition.alpha=0.5",
    ]
    assert notes == ["These keys differ between the tables too: rounds"]


def test_a_key_that_only_some_runs_have(tmp_path, make_run):
    make_run(tmp_path / "a", label={"partition": "iid"}, config={"partition": {"name": "iid"}})
    for alpha in (0.1, 0.5):
        make_run(tmp_path / str(alpha), label={"partition": "dirichlet"}, config={"partition": {"alpha": alpha}})
    groups, _ = grouped(tmp_path)
    assert {group.title for group in groups} == {
        "partition=iid",
        "partition=dirichlet, partition.alpha=0.1",
        "partition=dirichlet, partition.alpha=0.5",
    }


def test_where_a_run_wrote_and_on_what_it_ran_is_no_setting(tmp_path, make_run):
    for number in (0, 1):
        config = {
            "engine": {"threads": number},
            "callbacks": {"stop": number},
            "task": {"x": number},
        }
        make_run(tmp_path / str(number), seed=number, config=config, label={"engine": f"engine{number}"})
    (group,), _ = grouped(tmp_path)
    assert cells(group) == {("mean", "none"): [0, 1]}


def test_two_configs_of_one_strategy_become_two_rows(tmp_path, make_run):
    for f in (1, 2):
        for attack in ("none", "alie"):
            make_run(tmp_path / f"{f}{attack}", "krum", attack, 0, config={"strategy": {"rule": {"f": f}}})
    (group,), notes = grouped(tmp_path)
    assert {strategy for strategy, _ in group.cells} == {"krum (rule.f=1)", "krum (rule.f=2)"}
    assert notes == []


def test_two_configs_of_one_attack_become_two_columns(tmp_path, make_run):
    for z in (None, 1.5):
        make_run(tmp_path / str(z), "krum", "alie", 0, config={"attack": {"fraction": 0.2, "method": {"z": z}}})
    (group,), _ = grouped(tmp_path)
    assert {attack for _, attack in group.cells} == {"alie (method.z=null)", "alie (method.z=1.5)"}


def test_a_strategy_that_is_configured_by_attack_keeps_its_row_and_it_is_said(tmp_path, make_run):
    for attack, f in (("none", 0), ("alie", 4), ("ipm", 4)):
        make_run(tmp_path / attack, "krum", attack, 0, config={"strategy": {"rule": {"f": f}}})
    (group,), notes = grouped(tmp_path)
    assert {strategy for strategy, _ in group.cells} == {"krum"}
    assert notes == [
        "Not every strategy is configured alike in all of its cells: krum has rule.f=0 (none) and rule.f=4 (alie, ipm)"
    ]


def test_the_share_of_attackers_is_a_setting_and_clean_runs_stand_in_each(tmp_path, make_run):
    make_run(tmp_path / "none", "krum", "none", 0, config={"f": 0, "attack": {"fraction": 0.1, "method": None}})
    for fraction, f in ((0.1, 2), (0.3, 6)):
        config = {"f": f, "attack": {"fraction": fraction, "method": {"z": 1}}}
        make_run(tmp_path / f"{fraction}", "krum", "alie", 0, config=config)
    groups, notes = grouped(tmp_path)
    assert [group.title for group in groups] == ["attack.fraction=0.1, f=2", "attack.fraction=0.3, f=6"]
    assert all(cells(group) == {("krum", "none"): [0], ("krum", "alie"): [0]} for group in groups)
    assert notes == ["Runs without an attack stand beside attacked ones although these settings differ: attack.fraction; f"]


def test_clean_runs_with_the_same_share_come_first(tmp_path, make_run):
    for f in (2, 6):
        for attack in ("none", "alie"):
            make_run(tmp_path / f"{attack}{f}", "krum", attack, 0, config={"f": f})
    groups, notes = grouped(tmp_path)
    for group in groups:
        assert {str(run.config["f"]) for runs in group.cells.values() for run in runs} == {group.setting["f"]}
    assert notes == []


def test_a_sweep_of_shares_with_clean_runs_in_each(tmp_path, make_run):
    for fraction, f in ((0.1, 2), (0.3, 6)):
        for attack in ("none", "alie"):
            config = {"f": f if attack == "alie" else 0, "attack": {"fraction": fraction, "method": None}}
            make_run(tmp_path / f"{attack}{f}", "krum", attack, 0, config=config)
    groups, _ = grouped(tmp_path)
    assert len(groups) == 2
    for group in groups:
        assert cells(group) == {("krum", "none"): [0], ("krum", "alie"): [0]}
        assert len({run.config["attack"]["fraction"] for runs in group.cells.values() for run in runs}) == 1


def test_the_later_of_two_equal_runs_is_kept(tmp_path, make_run):
    make_run(tmp_path / "b", values=[0.1, 0.2], fields={"started": "2026-01-02T00:00:00+00:00"})
    make_run(tmp_path / "a", values=[0.1, 0.3], fields={"started": "2026-01-03T00:00:00+00:00"})
    (group,), notes = grouped(tmp_path)
    ((run,),) = group.cells.values()
    assert run.path.name == "a"
    assert len(notes) == 1
    assert "1 run repeated with the same seed; the latest started is kept" in notes[0]
    assert f"{tmp_path / 'b'} gives way to {tmp_path / 'a'}" in notes[0]


def test_unfinished_and_unreadable_runs_are_left_out_and_named(tmp_path, make_run):
    make_run(tmp_path / "done")
    make_run(tmp_path / "dead", seed=1, status="failed", error="ClientError: client 3\ntraceback", fields={"rounds": 9})
    make_run(tmp_path / "going", seed=2, status="running", values=[0.1, 0.2])
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text("{")
    (group,), notes = grouped(tmp_path)
    assert cells(group) == {("mean", "none"): [0]}
    assert notes[0] == (
        f"2 of 4 runs left out, not completed: {tmp_path / 'dead'} (failed after 0 of 9 rounds: ClientError: client 3); "
        f"{tmp_path / 'going'} (running after 1 of 1 rounds)"
    )
    assert notes[1].startswith(f"1 of 4 runs left out, unreadable: {tmp_path / 'torn' / 'run.json'} cannot be read")


@pytest.mark.parametrize(
    ("end", "last"),
    [("2,test,,accuracy,0.3\n", 2), ("2,test,,accuracy,0.3\n2,te", 2), ("3,test,,accuracy,0.45\n3,test,,loss,1.4", 3)],
    ids=["between lines", "within a line", "within the last"],
)
def test_a_completed_run_that_lost_lines_is_read_up_to_there_and_named(tmp_path, make_run, end, last):
    run = make_run(tmp_path / "a", values=[0.1, 0.2, 0.3, 0.45])
    make_run(tmp_path / "b", seed=1, values=[0.1, 0.2, 0.3, 0.5])
    file = run.path / "metrics.csv"
    text = file.read_text()
    assert end in text
    file.write_text(text[: text.index(end) + len(end)])
    (group,), notes = grouped(tmp_path)
    assert cells(group) == {("mean", "none"): [0, 1]}
    assert notes == [
        f"1 of 2 runs lost the end of metrics.csv, and are read up to there: {tmp_path / 'a'} (to round {last} of 3)"
    ]


def test_a_killed_run_says_how_far_it_came(tmp_path, make_run):
    make_run(tmp_path / "done")
    run = make_run(tmp_path / "dead", seed=1, status="running", values=[0.1, 0.2, 0.3], fields={"rounds": 9})
    run.update(rounds_done=0)  # as it is on disk until the end
    _, notes = grouped(tmp_path)
    assert notes == [f"1 of 2 runs left out, not completed: {tmp_path / 'dead'} (running after 2 of 9 rounds)"]


def test_a_run_of_another_format_is_named(tmp_path, make_run):
    make_run(tmp_path / "new")
    make_run(tmp_path / "old", seed=1).update(format=0)
    _, notes = grouped(tmp_path)
    where = tmp_path / "old" / "run.json"
    assert notes == [f"1 of 2 runs left out, unreadable: {where} has format 0; this version reads format 1"]


def test_how_a_run_was_saved_is_no_setting(tmp_path, make_run):
    for seed, every in enumerate((1, 10)):
        config = {"checkpoint": {"every": every}, "resume": "auto" if seed else None}
        make_run(tmp_path / str(seed), seed=seed, config=config)
    (group,), notes = grouped(tmp_path)
    assert (cells(group), notes) == ({("mean", "none"): [0, 1]}, [])


def test_different_versions_are_said(tmp_path, make_run):
    for seed, version in enumerate(("0.1.0", "0.2.0")):
        make_run(tmp_path / version, seed=seed, fields={"versions": {"fedagg": version, "torch": "2.13"}})
    _, notes = grouped(tmp_path)
    assert notes == ["The runs were made with different versions: fedagg 0.1.0, 0.2.0"]


def test_nothing_to_report_on(tmp_path, make_run):
    make_run(tmp_path / "a", status="failed")
    with pytest.raises(
        ConfigError, match=r"no completed run to report on. 1 of 1 run left out, not completed: .*failed after"
    ):
        report(tmp_path)
    with pytest.raises(ConfigError, match="at least one run directory"):
        report([])


def test_a_metric_nobody_recorded_is_refused_with_the_nearest(tmp_path, make_run):
    make_run(tmp_path / "a", values=[0.1, 0.2])
    with pytest.raises(
        ConfigError, match=r"no run recorded test/acuracy; recorded are test/accuracy, test/loss; did you mean test/accuracy"
    ):
        report(tmp_path, metric="acuracy")
    with pytest.raises(ConfigError, match=r"cannot be judged|can be judged that way: .*1 evaluated rounds, last:5 needs 5"):
        report(tmp_path, protocol="last:5")


@pytest.mark.usefixtures("no_pictures")
def test_runs_that_a_protocol_cannot_judge_are_named(tmp_path, make_run):
    make_run(tmp_path / "long", values=[0.1, 0.2, 0.3], config={"rounds": 2})
    make_run(tmp_path / "short", seed=1, values=[0.1, 0.2], config={"rounds": 2})
    done = report(tmp_path, protocol="last:2", quiet=True)
    assert done.tables[0].cells["mean", "none"].seeds == (0,)
    assert [str(note) for note in done.notes] == [f"Left out too: {tmp_path / 'short'} (1 evaluated rounds, last:2 needs 2)"]


@pytest.mark.usefixtures("no_pictures")
def test_attacks_under_which_nobody_measured_the_metric_are_named_and_not_each_of_their_runs(tmp_path, make_run):
    for attack in ("none", "alie", "backdoor"):
        for seed in range(2):
            run = make_run(tmp_path / f"{attack}-{seed}", "krum", attack, seed, [0.1, 0.2])
            if attack == "backdoor" and seed == 0:
                run.append([(1, "test", None, "attack_success_rate", 0.5)])
    done = report(tmp_path, metric="attack_success_rate", quiet=True)
    assert list(done.tables[0].cells) == [("krum", "backdoor")]
    assert [str(note) for note in done.notes] == [
        "Left out, no test/attack_success_rate: alie; none",
        f"Left out too: {tmp_path / 'backdoor-1'} (no test/attack_success_rate)",
    ]


def test_long_notes_are_cut_for_the_terminal():
    note = Note("Left out", tuple("abcdefg"))
    assert note.short() == "Left out: a; b; c; d; and 3 more"
    assert str(note) == "Left out: a; b; c; d; e; f; g"
    assert Note("Left out", tuple("abcde")).short() == "Left out: a; b; c; d; e"


def test_flatten():
    assert flatten({"a": {"b": [1, 2], "c": {}}, "d": None, "e": "x"}) == {"a.b": "[1, 2]", "a.c": "{}", "d": "null", "e": "x"}


def test_a_chain_of_pre_aggregators_is_part_of_a_strategy(tmp_path, make_run):
    """And how many examples the server kept for one strategy sets no table apart."""
    chains = {"none": {}, "nnm": {"nnm": {"f": 2}}, "nnm,arc": {"nnm": {"f": 2}, "arc": {"f": 2}}}
    for trusted, (chain, parts) in enumerate(chains.items()):
        config = {"pre_aggregators": parts, "pre_aggregation": chain.replace("none", ""), "trusted": trusted}
        make_run(tmp_path / chain, "krum", "alie", label={"pre_aggregators": chain}, config=config)
    (group,), notes = grouped(tmp_path)
    assert set(cells(group)) == {("krum", "alie"), ("nnm + krum", "alie"), ("nnm + arc + krum", "alie")}
    assert notes == []


def test_one_chain_with_two_settings_is_two_strategies(tmp_path, make_run):
    for f in (1, 2):
        config = {"pre_aggregators": {"nnm": {"f": f}}}
        make_run(tmp_path / str(f), "krum", "alie", label={"pre_aggregators": "nnm"}, config=config)
    (group,), _ = grouped(tmp_path)
    assert set(cells(group)) == {("nnm + krum (nnm.f=1)", "alie"), ("nnm + krum (nnm.f=2)", "alie")}


def test_what_attackers_see_is_said(tmp_path, make_run):
    make_run(tmp_path / "0", attack="none", fields={"knowledge": None})
    make_run(tmp_path / "1", attack="alie", fields={"knowledge": "honest"})
    make_run(tmp_path / "2", attack="label_flip", fields={"knowledge": "own"})
    make_run(tmp_path / "3", attack="ipm", fields={"knowledge": "honest"})
    _, notes = grouped(tmp_path)
    assert notes == ["What attackers see: all honest updates (alie, ipm); their own data and updates (label_flip)"]
