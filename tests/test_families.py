"""docs/families.md: the family in it is one, and every script knows it by its functions alone."""

import importlib
import inspect
import re
import sys
import types
from pathlib import Path

import yaml

import config
from evaluation import score_files
from training.families import Family


def blocks(language: str) -> list[str]:
    page = (Path(config.__file__).parent / "docs" / "families.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_a_family_of_ones_own(yaml_file, monkeypatch, tmp_path):
    module_text, settings_text = blocks("python")
    monkeypatch.setattr(config, "MODELS", dict(config.MODELS))
    exec(settings_text, vars(config) | {"model": config.model})
    module = types.ModuleType("nearest_model")
    monkeypatch.setitem(sys.modules, "nearest_model", module)
    exec(module_text, vars(module))
    path = yaml_file({"system": "nearest", "systems": yaml.safe_load(blocks("yaml")[0])})
    for script in ("00_train", "01_test"):
        importlib.import_module(script).main(["-d", "--config", str(path)])
    scores = score_files.read_folder(tmp_path / "result" / "dev" / "nearest")
    assert len(scores) == 4 and all(values.decisions is not None for values in scores.values())
    for name, declared in inspect.getmembers(Family, inspect.isfunction):
        if not name.startswith("_"):
            given = list(inspect.signature(getattr(module, name)).parameters)
            assert given == [one for one in inspect.signature(declared).parameters if one != "self"]
