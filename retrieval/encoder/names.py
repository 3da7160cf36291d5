"""The child process that asks torchvision and timm which models they know, and whose weights are in their caches.

`python -m retrieval.encoder.names`; see `listing` for who asks.
"""

import sys
from pathlib import Path

from retrieval.encoder.child import answer_parent


def library_names() -> list[tuple[str, str, bool]]:
    """List every model with pretrained weights: name, library, and whether the weights were downloaded before."""
    import timm
    import torch
    import torchvision
    from huggingface_hub import try_to_load_from_cache

    from retrieval.encoder import torchvision_models
    from retrieval.encoder.timm_models import HUB_FILE

    downloads = Path(torch.hub.get_dir()) / "checkpoints"
    rows = []
    for name in torchvision_models.names():
        url = torchvision.models.get_model_weights(name)["DEFAULT"].url
        rows.append((name, "torchvision", (downloads / url.rpartition("/")[2]).is_file()))
    for name in timm.list_pretrained():
        cfg = timm.get_pretrained_cfg(name)
        if cfg.hf_hub_id:
            cached = try_to_load_from_cache(cfg.hf_hub_id, cfg.hf_hub_filename or HUB_FILE)
            rows.append((name, "timm", isinstance(cached, str)))
    return rows


if __name__ == "__main__":
    sys.exit(answer_parent(library_names))
