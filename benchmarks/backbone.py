"""Make the backbone that lies in the package, from ImageNet weights and simulated micrographs.

    python benchmarks/backbone.py [--imagenet FILE] [--out FILE] [--steps N] [--micrographs N]

About 40 minutes on two cores. Without --imagenet timm fetches the weights.
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from pickeropt.models.backbone import Backbone
from pickeropt.models.initial import initial_backbone
from pickeropt.pretrain.config import PretrainConfig
from pickeropt.pretrain.distil import distil, teach
from pickeropt.pretrain.material import simulated_views
from pickeropt.training import choose_device, seed_everything

STAGES = ("layer2", "layer3")


def save_backbone(backbone: Backbone, path: Path, made: str) -> None:
    """float16 safetensors with timm's names, and a line on how it was made."""
    state = {
        n: v.half().cpu().contiguous() for n, v in backbone.body.state_dict().items() if v.is_floating_point()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path), {"format": "pickeropt backbone 1", "made": made})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imagenet", type=Path, help="ImageNet ResNet-18 weights (default: timm's)")
    parser.add_argument("--out", type=Path, default=Path("runs/resnet18.safetensors"))
    parser.add_argument("--steps", type=int, default=PretrainConfig.steps)
    parser.add_argument("--micrographs", type=int, default=PretrainConfig.micrographs)
    args = parser.parse_args()
    config = PretrainConfig(steps=args.steps, micrographs=args.micrographs)
    begun, device = time.perf_counter(), choose_device("auto")
    seed_everything(config.seed)

    def say(text: str) -> None:
        print(f"{time.perf_counter() - begun:6.0f} s  {text}", flush=True)

    backbone = initial_backbone("resnet18", "imagenet", args.imagenet, STAGES)
    views = list(simulated_views(config))
    say(f"{len(views)} simulated views")
    teach(backbone, views, device)
    say("target maps of the teacher, eight orientations")
    losses: list[tuple[float, float]] = []

    def on_step(step: int, rotation: float, classes: float) -> None:
        losses.append((rotation, classes))
        if step % 50 == 0:
            mean = torch.tensor(losses[-50:]).mean(0).tolist()
            say(f"step {step}: rotation {mean[0]:.3f}, source classes {mean[1]:.3f}")

    distil(backbone, views, config, device, on_step)
    save_backbone(backbone, args.out, f"ImageNet ResNet-18, benchmarks/backbone.py, {config}")
    say(f"wrote {args.out}")


if __name__ == "__main__":
    main()
