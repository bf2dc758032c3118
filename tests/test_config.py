"""A config is frozen, strict, names its errors, and its fingerprint is what it computes."""

import re
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from pydantic import ValidationError

from sensloc.config import Compare, Config, ConfigError, absolute, load_config
from sensloc.methods import catalogue

REPOSITORY = Path(__file__).resolve().parents[1]

SECTIONS = {
    "dataset": 'layout = "voc"\nroot = "images"',
    "classifier": 'source = "timm"\nname = "resnet18"',
}


def toml(top: str = 'name = "a"\noutput = "out"', **more: str) -> str:
    """The smallest config, with more lines in its sections."""
    names = dict.fromkeys([*SECTIONS, *more])
    bodies = {name: f"{SECTIONS.get(name, '')}\n{more.get(name, '')}" for name in names}
    return "\n".join([top, *(f"[{name}]\n{body}" for name, body in bodies.items())])


def load(folder: Path, text: str) -> Config:
    file = folder / "run.toml"
    file.write_text(text)
    return load_config(str(file))


def refusal(folder: Path, text: str) -> tuple[str, set[str]]:
    """The message, and the keys that it names."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert str(folder / "run.toml") in message
    return message, set(re.findall(r"^  (.*?): ", message, re.MULTILINE))


def test_a_config_is_read_without_what_takes_long_to_import():
    slow = "{'torch', 'torchvision', 'timm', 'sklearn', 'scipy', 'ray'}"
    code = f"import sys, sensloc.config; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("file", sorted((REPOSITORY / "conf").glob("*.toml")), ids=lambda f: f.stem)
def test_every_config_of_the_repository_parses(file: Path):
    config = load_config(str(file))
    assert config.name == file.stem
    assert len(config.fingerprint) == 16


@pytest.mark.parametrize(
    ("section", "line", "key"),
    [
        ("dataset", "colour = 1", "dataset.colour"),
        ("dataset", "voc = 1", "dataset.voc"),
        ("dataset", "n_images = 0", "dataset.n_images"),
        ("dataset", "only_classes = 3", "dataset.only_classes"),
        ("split", "seeds = 1", "split.seeds"),
        ("split", "table = 1", "split.table"),
        ("split", "train = 0.5", "split"),
        ("split", "train = -0.75", "split.train"),
        ("split", 'seed = "x"', "split.seed"),
        ("classifier", "weights = 1", "classifier.weights"),
        ("classifier", 'input_size = "big"', "classifier.input_size"),
        ("classifier", "input_size = 1.5", "classifier.input_size"),
        ("classifier", "std = [0, 0, 0]", "classifier.std.0"),
        ("classifier", "classes = 5", "classifier.classes"),
        ("classifier", "classes = [1]", "classifier.classes.0"),
        ("sensitivity", 'channels = "mean"', "sensitivity.channels"),
        ("sensitivity", "grid = [14]", "sensitivity.grid"),
        ("fit", "ridges = []", "fit.ridges"),
        ("fit", "ridges = [1.0, -1.0]", "fit.ridges.1"),
        ("fit", "size_factors = [0.0]", "fit.size_factors.0"),
        ("fit", "size_factors = [inf]", "fit.size_factors.0"),
        ("evaluate", "iou = nan", "evaluate.iou"),
        ("evaluate", "iou = 0.0", "evaluate.iou"),
        ("compare", 'methods = ["sensitivity", "guess"]', "compare.methods.1"),
        ("compare", "methods = []", "compare.methods"),
        ("compare", "method = 1", "compare.method"),
        ("compare", "train = 0", "compare.train"),
        ("compare", "mus = [0.0]", "compare.mus.0"),
        ("compare", "gradcam_layer = 3", "compare.gradcam_layer"),
        ("compare", "label_counts = [0]", "compare.label_counts.0"),
        ("resources", "actors = 0", "resources.actors"),
        ("sensitivities", "grid = 7", "sensitivities"),
    ],
)
def test_a_bad_value_is_named_by_its_key(tmp_path: Path, section: str, line: str, key: str):
    _, keys = refusal(tmp_path, toml(**{section: line}))
    assert key in keys
    allowed = re.compile(rf"{re.escape(key)}|{re.escape(re.sub('[.][0-9]+$', '', key))}([.]\d+)?")
    assert all(allowed.fullmatch(named) for named in keys), f"noise in the keys: {keys}"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", {"name", "output", "dataset", "classifier"}),
        (toml('name = "a b"\noutput = "out"'), {"name"}),
        (toml().replace('layout = "voc"', 'layout = "nope"'), {"dataset"}),
        (toml().replace('layout = "voc"', ""), {"dataset"}),
        (toml().replace('root = "images"', ""), {"dataset.root"}),
        (toml().replace('name = "resnet18"', ""), {"classifier.name"}),
        (toml(split="train = 2.0", fit="normalise = 3"), {"split.train", "fit.normalise"}),
    ],
)
def test_every_missing_or_bad_key_is_named_at_once(tmp_path: Path, text: str, keys: set[str]):
    assert refusal(tmp_path, text)[1] == keys


def test_a_file_that_is_not_toml_is_named(tmp_path: Path):
    for content in (b"name = ", b"\xff\xfe\x00", b"name = 1\nname = 2"):
        file = tmp_path / "run.toml"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=re.escape(f"{file}: not a TOML file")):
            load_config(str(file))


@pytest.mark.parametrize("path", ["missing.toml", ".", "memory://missing.toml", "nope://run.toml"])
def test_a_file_that_cannot_be_read_is_named(path: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(path)):
        load_config(path)


@pytest.mark.parametrize(
    ("shares", "fine"),
    [
        ((0.7, 0.2, 0.1), True),
        ((0.1, 0.2, 0.7), True),
        ((1.0, 0.0, 0.0), True),
        ((0.75, 0.125, 0.124), False),
        ((0.714, 0.143, 0.15), False),
    ],
)
def test_the_shares_of_the_split_sum_to_one(
    tmp_path: Path, shares: tuple[float, float, float], fine: bool
):
    names = ("train", "validation", "test")
    lines = "\n".join(f"{name} = {share}" for name, share in zip(names, shares, strict=True))
    if fine:
        split = load(tmp_path, toml(split=lines)).split
        assert (split.train, split.validation, split.test) == shares
    else:
        assert "disjoint" in refusal(tmp_path, toml(split=lines))[0]


def test_a_config_is_frozen(tmp_path: Path):
    config = load(tmp_path, toml())
    for value, name in ((config, "name"), (config.fit, "ridges"), (config.dataset, "root")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(value, name, getattr(value, name))


def test_the_fingerprint_ignores_name_output_and_resources(tmp_path: Path):
    one = load(tmp_path, toml())
    other = load(
        tmp_path,
        toml(
            'name = "b"\noutput = "elsewhere"',
            resources="actors = 9\nrows_per_block = 7\ncpus_per_actor = 3\nconnections = 1",
        ),
    )
    written_out = load(tmp_path, toml(sensitivity="grid = 14", fit='normalise = "l2"'))
    assert one != other
    assert one.fingerprint == other.fingerprint == written_out.fingerprint


def test_the_fingerprint_changes_with_everything_else(tmp_path: Path):
    variants = [
        {},
        {"dataset": "seed = 1"},
        {"dataset": "n_images = 9"},
        {"split": "seed = 1"},
        {"split": "train = 0.5\nvalidation = 0.25\ntest = 0.25"},
        {"classifier": "input_size = 128"},
        {"classifier": 'classes = ["a", "b"]'},
        {"classifier": "mean = [0.5, 0.5, 0.5]"},
        {"sensitivity": "grid = 7"},
        {"sensitivity": 'label = "predicted"'},
        {"sensitivity": "batch_size = 8"},
        {"fit": "ridges = [1.0]"},
        {"fit": "size_factors = [1.0]"},
        {"evaluate": "iou = 0.7"},
        {"evaluate": "seed = 1"},
    ]
    found = {load(tmp_path, toml(**variant)).fingerprint for variant in variants}
    assert len(found) == len(variants)


COMPARE = [
    'methods = ["sensitivity"]',
    'also = ["inner_8_linear"]',
    'maps = {mine = "maps/{image_id}.npy"}',
    "train = 7",
    "validation = 7",
    "seed = 7",
    "shrinkages = [7]",
    "objectness_images = 7",
    "objectness_size = 7",
    "proposals = 7",
    "words = 7",
    "mus = [7]",
    "lams = [7]",
    'gradcam_layer = "layer3"',
    "smoothgrad_samples = 7",
    "smoothgrad_level = 7",
    "integrated_steps = 7",
    "label_counts = [7]",
    "label_draws = 7",
    'unseen = ["n01440764"]',
]
SPEED = ["speed_images = 7", "speed_rounds = 7"]


def test_a_comparison_has_an_identity_of_its_own(tmp_path: Path):
    """How often methods are timed is no part of it; it is no part of the run's."""
    assert [line.split()[0] for line in COMPARE + SPEED] == list(Compare.model_fields)
    plain = load(tmp_path, toml())
    configs = [load(tmp_path, toml(compare=line)) for line in COMPARE]
    timed = [load(tmp_path, toml(compare=line)) for line in SPEED]
    assert {config.fingerprint for config in configs + timed} == {plain.fingerprint}
    identities = [config.compare.identity for config in [plain, *configs]]
    assert all(identities.count(one) == 1 for one in identities)
    assert all(config.compare.identity == plain.compare.identity for config in timed)
    assert all(config != plain for config in timed)


def test_every_method_is_in_the_catalogue(tmp_path: Path):
    methods = load(tmp_path, toml()).compared
    assert methods == tuple(name for name in catalogue.NAMED if name != "foreground_second")
    twice = load(tmp_path, toml(foreground="looks = 2")).compared
    assert twice == tuple(catalogue.NAMED)
    assert "foreground" not in load(tmp_path, toml(foreground="looks = 0")).compared
    changed = toml(foreground="looks = 0", compare='methods = ["foreground"]')
    with pytest.raises(ConfigError, match=r"compare\.methods has foreground: .*looks is too small"):
        load(tmp_path, changed)
    with pytest.raises(ConfigError, match=r"compare\.methods"):
        load(tmp_path, toml(compare='methods = ["no such method"]'))
    assert catalogue.columns(["sensitivity_cam", "objectness"]) == {"map", "map_cam"}
    assert catalogue.columns(["constant_mean", "colocalization_sift"]) == set()
    assert catalogue.title("sensitivity_calibrated") == "sensitivity map, linear map, calibrated"


def test_data_and_output_replace_the_files(tmp_path: Path):
    file = tmp_path / "run.toml"
    file.write_text(toml())
    plain = load_config(str(file))
    moved = load_config(str(file), data="s3://bucket/images", output="memory://out")
    assert moved.dataset.root == "s3://bucket/images"
    assert moved.output == "memory://out"
    assert moved.dataset.model_copy(update={"root": plain.dataset.root}) == plain.dataset
    file.write_text(toml().replace('root = "images"', "").replace('output = "out"', ""))
    assert load_config(str(file), data="/x", output="/y").dataset.root == "/x"


def test_local_paths_become_absolute_and_urls_stay(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = load(tmp_path, toml())
    assert (config.dataset.root, config.output) == (f"{tmp_path}/images", f"{tmp_path}/out")
    assert absolute("~/x") == "/home/me/x"
    for url in ("s3://bucket/x", "zip://a::/b.zip", "memory://x"):
        assert absolute(url) == url


def test_a_name_is_its_file_in_conf_unless_it_is_a_file(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("demo") == load_config(str(REPOSITORY / "conf/demo.toml"))
    (tmp_path / "demo").write_text(toml())
    assert load_config("demo").name == "a"
    with pytest.raises(ConfigError, match=r"^dem: no such config file; .* demo, imagenet, "):
        load_config("dem")


def test_a_config_may_lie_anywhere():
    with fsspec.open("memory://configs/run.toml", "w") as file:
        file.write(toml())
    assert load_config("memory://configs/run.toml").name == "a"


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("evaluate.iou=0.7", ("evaluate", "iou"), 0.7),
        ("resources.actors = 8", ("resources", "actors"), 8),
        ("sensitivity.label=predicted", ("sensitivity", "label"), "predicted"),
        ('sensitivity.label="predicted"', ("sensitivity", "label"), "predicted"),
        ("fit.ridges=[1e-3, 1e-2]", ("fit", "ridges"), (1e-3, 1e-2)),
        ("name=b", ("name",), "b"),
        ("name=b=c", (), None),
    ],
)
def test_one_value_can_be_changed(tmp_path: Path, change: str, key: tuple[str, ...], value: object):
    file = tmp_path / "run.toml"
    file.write_text(toml())
    if not key:
        with pytest.raises(ConfigError, match="name: String should match"):
            load_config(str(file), changes=[change])
        return
    changed: object = load_config(str(file), changes=[change])
    for part in key:
        changed = getattr(changed, part)
    assert changed == value


def test_the_last_change_counts_and_the_fingerprint_knows(tmp_path: Path):
    file = tmp_path / "run.toml"
    file.write_text(toml())
    plain = load_config(str(file))
    twice = load_config(str(file), changes=["evaluate.iou=0.7", "evaluate.iou=0.6"])
    assert twice.evaluate.iou == 0.6
    assert twice.fingerprint != plain.fingerprint
    assert load_config(str(file), changes=["resources.actors=9"]).fingerprint == plain.fingerprint


@pytest.mark.parametrize("change", ["evaluate.iou", "=3", "evaluate.=3", ".iou=3", "name.x=3"])
def test_a_change_that_is_none_is_named(tmp_path: Path, change: str):
    file = tmp_path / "run.toml"
    file.write_text(toml())
    with pytest.raises(ConfigError, match=f"--set {re.escape(change)}"):
        load_config(str(file), changes=[change])
