"""What interpolations in configs may compute.

``${minus:a,b}``; ``${names_in:${group}}``, the keys of a part in their order, which a hash of settings does not see; and
``${run_id:}``, the name of a run's directory.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict


def _run_id(*, _root_: DictConfig) -> str:
    from fedagg.results import run_id  # needs NumPy, which fedagg run --help does not

    cfg = _root_.copy()
    with open_dict(cfg):
        cfg.pop("hydra", None)
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return run_id(plain)


def register() -> None:
    """Make them known; may be called again."""
    OmegaConf.register_new_resolver("minus", lambda a, b: a - b, replace=True)
    OmegaConf.register_new_resolver("names_in", lambda part: ",".join(part), replace=True)
    OmegaConf.register_new_resolver("run_id", _run_id, replace=True)
