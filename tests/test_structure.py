"""The shape of the code: who imports whom, who may draw random numbers, and what is public. Measured with ``ast``."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedagg
import fedagg.attacks
import strategies
from fedagg import Attack, PreAggregator, Rule, Weighting

ROOT = Path(__file__).parent.parent
ENGINE = sorted((ROOT / "fedagg").rglob("*.py"))
METHODS = sorted((ROOT / "strategies").rglob("*.py"))

FLOWER = {  # where the engine touches Flower, and nowhere else
    "fedagg/clients/app.py",
    "fedagg/flower.py",
    "fedagg/grid/adversary.py",
    "fedagg/grid/availability.py",
    "fedagg/grid/base.py",
    "fedagg/grid/clients.py",
    "fedagg/grid/faults.py",
    "fedagg/grid/local.py",
    "fedagg/grid/sanitize.py",
    "fedagg/loop.py",
    "fedagg/grid/ray.py",
    "fedagg/grid/workers.py",
    "fedagg/params.py",
    "fedagg/replies.py",
    "fedagg/saving.py",  # records as plain containers
    "fedagg/strategy.py",
}
RAY = ["fedagg/grid/ray.py", "fedagg/study/ray_crew.py"]
ROUND = {"clients", "grid", "strategy", "loop", "experiment", "hydra_app", "cli", "flower"}  # what moves messages and files
FORBIDDEN = {  # what a part must never import, however deep inside
    "attacks": ROUND | {"data", "report", "results"},
    "cohort": ROUND | {"data", "attacks", "params"},
    "contracts": ROUND | {"data", "attacks", "params"},
    "data": ROUND | {"attacks", "params", "contracts"},
    "linalg": ROUND | {"data", "attacks", "params"},
    "params": ROUND | {"data", "attacks"},
    "resident": ROUND | {"data", "attacks"},
    "report": ROUND | {"data", "attacks", "params"},
    "results": ROUND | {"data", "attacks", "params"},
    "rng": ROUND | {"data", "attacks", "params"},
}


def place(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """Every absolute module name that is imported anywhere in a file, inside functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(ast.parse(file.read_text()))}


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of an attribute chain; what is not a name is a question mark."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def test_the_engine_knows_no_method_by_name() -> None:
    assert [place(file) for file in ENGINE if packages(file) & {"strategies", "experiments", "tests"}] == []


def test_methods_stand_on_contracts_and_tensors_alone() -> None:
    """A rule that reads files, configs, messages or rounds is no rule."""
    for file in METHODS:
        tree = ast.parse(file.read_text())
        assert not {"flwr", "hydra", "omegaconf", "ray", "yaml", "os", "pathlib"} & packages(file), place(file)
        assert not {name.split(".")[1] for name in imported(tree) if name.startswith("fedagg.")} & (ROUND - {"strategy"})


def test_flower_is_imported_where_it_is_needed_and_nowhere_else() -> None:
    assert {place(file) for file in [*ENGINE, *METHODS] if "flwr" in packages(file)} == FLOWER


def test_ray_is_imported_where_it_is_needed_and_nowhere_else() -> None:
    assert [place(file) for file in [*ENGINE, *METHODS] if "ray" in packages(file)] == RAY


def test_nothing_imports_ray_unless_it_is_asked_for() -> None:
    """Not even the Grids: importing it takes a while, and it does not exist everywhere."""
    code = "import sys, fedagg.grid, fedagg.experiment, fedagg.cli, fedagg.study; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def parts_imported(file: Path, top_only: bool = False) -> set[str]:
    """The parts of the engine (``grid``, ``loop``, ...) that a file imports; at its top only, or anywhere in it."""
    tree: ast.Module = ast.parse(file.read_text())
    if top_only:
        tree = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    parts = {name.split(".")[1] for name in imported(tree) if name.startswith("fedagg.")}
    homes = {fedagg._HOME[part].split(".")[1] if part in fedagg._HOME else part for part in parts}
    return {part for part in homes if (ROOT / "fedagg" / part).is_dir() or (ROOT / "fedagg" / f"{part}.py").exists()}


def part_of(file: Path) -> str:
    return file.relative_to(ROOT / "fedagg").parts[0].removesuffix(".py")


@pytest.mark.parametrize("part", FORBIDDEN)
def test_what_stands_below_does_not_know_what_stands_above(part: str) -> None:
    files = [file for file in ENGINE if part_of(file) == part]
    assert files
    assert {place(file): wrong for file in files if (wrong := parts_imported(file) & FORBIDDEN[part])} == {}


def test_the_parts_form_no_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for file in ENGINE:
        if part_of(file) != "__init__":
            arrows.setdefault(part_of(file), set()).update(parts_imported(file, top_only=True) - {part_of(file)})
    assert arrows["experiment"] >= {"clients", "data", "grid", "loop"}
    while arrows:
        ground = {part for part, below in arrows.items() if not below & set(arrows)}
        assert ground, f"these import each other in a circle: {arrows}"
        arrows = {part: below for part, below in arrows.items() if part not in ground}


def test_classes_are_made_from_configs_in_one_place() -> None:
    calls = [
        place(file)
        for file in [*ENGINE, *METHODS]
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Attribute | ast.Name) and dotted(node).split(".")[-1] == "instantiate")
        or (isinstance(node, ast.ImportFrom) and any(alias.name == "instantiate" for alias in node.names))
    ]
    assert calls == ["fedagg/instantiate.py"]


def test_files_are_short() -> None:
    files = [*ENGINE, *METHODS, *(ROOT / "tests").rglob("*.py")]
    assert {place(file): n for file in files if (n := len(file.read_text().splitlines())) > 400} == {}


# Random numbers

DRAWS = {"rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal", "poisson", "dropout", "seed"}
IN_PLACE = {"normal_", "uniform_", "bernoulli_", "random_", "exponential_", "log_normal_", "cauchy_", "geometric_"}
OWN_GENERATOR = {"default_rng", "Generator", "SeedSequence", "PCG64", "get_state", "set_state", "SystemRandom", "Random"}


def global_draws(source: str) -> list[str]:
    """Calls that draw from, or seed, a generator that the whole process shares."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        base, _, last = name.rpartition(".")
        own = any(keyword.arg == "generator" for keyword in node.keywords)
        shared = (
            (base in ("np.random", "numpy.random", "random") and last not in OWN_GENERATOR)
            or name in ("torch.manual_seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "default_rng", "seed_all")
            or (base in ("torch", "torch.random") and last in DRAWS and not own)
            or (last in IN_PLACE and not own)
            or (last == "default_rng" and not node.args)
        )
        found += [f"{name} in line {node.lineno}"] if shared else []
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("np.random.seed(0)", 1),
        ("np.random.rand(3)", 1),
        ("random.shuffle(clients)", 1),
        ("torch.manual_seed(0)", 1),
        ("torch.randn(3, 4)", 1),
        ("x.normal_()", 1),
        ("np.random.default_rng()", 1),
        ("torch.randn(3, 4, generator=g)", 0),
        ("x.normal_(generator=g)", 0),
        ("np.random.default_rng(derive(seed, 'batches'))", 0),
        ("torch.Generator().manual_seed(1)", 0),
        ("draw.choice(10, 3)", 0),
    ],
)
def test_global_draws_are_recognised(source: str, found: int) -> None:
    assert len(global_draws(source)) == found


def test_nothing_draws_from_a_generator_that_others_share() -> None:
    """One file may: the seed tree, which seeds them for foreign code and puts them back."""
    draws = {place(file): found for file in [*ENGINE, *METHODS] if (found := global_draws(file.read_text()))}
    assert list(draws) == ["fedagg/rng.py"]


# What is public


@pytest.mark.parametrize("package", [fedagg, fedagg.attacks, strategies, fedagg.data, fedagg.grid, fedagg.clients])
def test_everything_named_in_all_can_be_imported(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(package, name) is not None


def test_what_plug_in_authors_import() -> None:
    contracts = ["Cohort", "Strategy", "Rule", "PreAggregator", "Weighting", "Attack"]
    world = ["Adversary", "Availability", "Callback", "Clients", "LocalGrid", "LocalSGD", "Population", "run"]
    errors = ["FedaggError", "ConfigError", "ClientError", "DatasetUnavailable"]
    assert {*contracts, *world, *errors} <= set(fedagg.__all__)
    assert inspect.isfunction(fedagg.run)
    for name in errors:
        assert issubclass(getattr(fedagg, name), fedagg.FedaggError)
    with pytest.raises(AttributeError, match="module 'fedagg' has no attribute 'Strateggy'"):
        fedagg.Strateggy  # noqa: B018


@pytest.mark.parametrize(
    ("package", "folder", "contracts"),
    [
        (strategies, ROOT / "strategies", (Rule, PreAggregator, Weighting, fedagg.Strategy)),
        (fedagg.attacks, ROOT / "fedagg" / "attacks", (Attack,)),
    ],
    ids=["strategies", "attacks"],
)
def test_every_method_is_in_a_file_of_its_name_and_public(package: object, folder: Path, contracts: tuple[type, ...]) -> None:
    """``trimmed_mean.py`` holds TrimmedMean, and ``strategies.TrimmedMean`` is it."""
    found = set()
    for file in folder.rglob("[!_]*.py"):
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
        own = [thing for thing in vars(module).values() if inspect.isclass(thing) and thing.__module__ == module.__name__]
        if not own:
            continue  # functions, which are methods of another kind: elections
        methods = [thing for thing in own if issubclass(thing, contracts) and not thing.__name__.startswith("_")]
        assert [method.__name__.lower() for method in methods] == [file.stem.replace("_", "")]
        assert getattr(package, methods[0].__name__) is methods[0]
        found.add(methods[0].__name__)
    assert found == set(package.__all__)  # type: ignore[attr-defined]
