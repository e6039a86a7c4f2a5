"""The models of the coverage benchmark, each a function that builds it with small inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

Built = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Architecture:
    """A model to build: (module, args, kwargs)."""

    suite: str
    family: str
    name: str
    build: Callable[[], Built]


@contextmanager
def _quick_initialisation() -> Iterator[None]:
    """Truncated normals take minutes for a billion weights; any small weights will do here."""
    slow = nn.init.trunc_normal_
    nn.init.trunc_normal_ = lambda tensor, mean=0.0, std=1.0, *_, **__: nn.init.normal_(
        tensor, mean, std
    )
    try:
        yield
    finally:
        nn.init.trunc_normal_ = slow


def _smallest(make: Callable[[int | None], nn.Module], sizes: tuple[int | None, ...], shape: Any):
    """The first size whose model runs, tried without weights, and that model with weights."""
    problem: Exception | None = None
    for size in sizes:
        try:
            with torch.device("meta"), torch.no_grad():
                make(size).eval()(torch.zeros(shape(size)))
        except Exception as error:
            problem = error
            if "meta" not in str(error):
                continue
        with _quick_initialisation():
            model, x = make(size), torch.randn(shape(size))
        try:
            with torch.no_grad():
                model.eval()(x)
        except Exception as error:
            problem = error
            continue
        return model, (x,), {}
    raise RuntimeError(f"no input size works: {problem}")


# -- torchvision -------------------------------------------------------------------------------


def _torchvision_image(name: str) -> Built:
    from torchvision import models

    def make(size: int | None) -> nn.Module:
        more: dict[str, Any] = {"image_size": size} if name.startswith("vit") and size else {}
        if name == "googlenet" or name.startswith("inception"):
            more["init_weights"] = False
        return models.get_model(name, weights=None, **more)

    sizes = (64, 128, 224)
    if name.startswith("vit"):
        sizes = (56, 64)
    elif name.startswith("maxvit"):
        sizes = (224,)
    return _smallest(make, sizes, lambda size: (2, 3, size, size))


def _torchvision_segmentation(name: str) -> Built:
    from torchvision import models

    model = models.get_model(name, weights=None, weights_backbone=None)
    return model, (torch.randn(2, 3, 64, 64),), {}


def _torchvision_detection(name: str) -> Built:
    from torchvision import models

    model = models.get_model(name, weights=None, weights_backbone=None)
    return model, ([torch.rand(3, 64, 64)],), {}


def _torchvision_video(name: str) -> Built:
    from torchvision import models

    model = models.get_model(name, weights=None)
    size = 224 if name.startswith(("mvit", "s3d")) else 64
    return model, (torch.randn(1, 3, 16, size, size),), {}


def torchvision() -> list[Architecture]:
    """Every classification, segmentation, detection and video model."""
    from torchvision import models

    groups = {
        "classification": (models, _torchvision_image),
        "segmentation": (models.segmentation, _torchvision_segmentation),
        "detection": (models.detection, _torchvision_detection),
        "video": (models.video, _torchvision_video),
    }
    return [
        Architecture("torchvision", group, name, partial(build, name))
        for group, (module, build) in groups.items()
        for name in models.list_models(module=module)
    ]


# -- timm --------------------------------------------------------------------------------------


def _timm(name: str) -> Built:
    import timm

    def make(size: int | None) -> nn.Module:
        return timm.create_model(name, pretrained=False, img_size=size)

    def plain(size: int | None) -> nn.Module:
        return timm.create_model(name, pretrained=False)

    size = timm.get_pretrained_cfg(name, allow_unregistered=False).input_size[-1]
    sizes = (64, 96, 128, 160, 224, 256, size)

    def shape(size: int | None) -> tuple[int, ...]:
        return (2, 3, size or 0, size or 0)

    try:
        with torch.device("meta"):
            make(64 if size % 14 else 56)
    except TypeError:  # no img_size to choose: the network takes any
        return _smallest(plain, sizes, shape)
    except Exception:  # the sizes are tried one by one
        pass
    return _smallest(make, (*((56, 112) if size % 14 == 0 else ()), *sizes), shape)


def timm_families() -> list[Architecture]:
    """The first model, in alphabetical order, of every family (file of timm.models)."""
    import timm
    from timm.models import _registry

    first: dict[str, str] = {}
    for name in sorted(timm.list_models()):
        first.setdefault(_registry._model_to_module[name], name)
    return [
        Architecture("timm", family, name, partial(_timm, name))
        for family, name in sorted(first.items())
    ]


# -- transformers ------------------------------------------------------------------------------

_BERT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "intermediate_size": 64, "vocab_size": 99, "max_position_embeddings": 64}  # fmt: skip
_LLAMA = {**_BERT, "num_key_value_heads": 2}
_VISION = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
           "intermediate_size": 64, "image_size": 32, "patch_size": 8}  # fmt: skip
_SEQ2SEQ = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 99,
            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64, "max_position_embeddings": 64, "pad_token_id": 1,
            "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}  # fmt: skip


def _tokens() -> dict[str, Any]:
    return {"input_ids": torch.randint(3, 99, (2, 10))}


def _masked_tokens() -> dict[str, Any]:
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[1, 7:] = 0
    return {**_tokens(), "attention_mask": mask}


def _causal() -> dict[str, Any]:
    return {**_tokens(), "use_cache": False}


def _pixels() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


def _two_sided() -> dict[str, Any]:
    return {**_tokens(), "decoder_input_ids": torch.randint(3, 99, (2, 7)), "use_cache": False}


def _image_and_text() -> dict[str, Any]:
    return {**_tokens(), **_pixels()}


def _spectrogram() -> dict[str, Any]:
    return {
        "input_features": torch.randn(2, 16, 40),
        "decoder_input_ids": torch.randint(3, 99, (2, 7)),
        "use_cache": False,
    }


def _waveform() -> dict[str, Any]:
    return {"input_values": torch.randn(2, 800)}


def _clip_parts() -> dict[str, Any]:
    text = {**_BERT, "eos_token_id": 98, "bos_token_id": 97, "pad_token_id": 1}
    return {"text_config": text, "vision_config": _VISION, "projection_dim": 16}


_NEOX = {**_BERT, "rotary_pct": 0.5}
_HEAD16 = {**_LLAMA, "head_dim": 8}
_SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
         "window_size": 4}  # fmt: skip
_MAMBA = {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4, "vocab_size": 99}

# model class, keyword arguments of its configuration, inputs
_TRANSFORMERS: list[tuple[str, dict[str, Any], Callable[[], dict[str, Any]]]] = [
    ("AlbertModel", {**_BERT, "embedding_size": 16, "num_hidden_groups": 1}, _masked_tokens),
    ("BartForConditionalGeneration", _SEQ2SEQ, _two_sided),
    ("BeitForImageClassification", _VISION, _pixels),
    ("BertForSequenceClassification", _BERT, _masked_tokens),
    ("BloomForCausalLM", {"hidden_size": 32, "n_layer": 3, "n_head": 4, "vocab_size": 99}, _causal),
    ("CLIPModel", _clip_parts(), _image_and_text),
    ("ConvNextForImageClassification",
     {"num_channels": 3, "hidden_sizes": [8, 16, 24, 32], "depths": [2, 2, 2, 2],
      "image_size": 32}, _pixels),
    ("DebertaV2Model", {**_BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
                        "position_buckets": 8}, _masked_tokens),
    ("DeiTForImageClassification", _VISION, _pixels),
    ("Dinov2ForImageClassification", {**_VISION, "mlp_ratio": 2}, _pixels),
    ("DistilBertForSequenceClassification",
     {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "vocab_size": 99}, _masked_tokens),
    ("ElectraForSequenceClassification", {**_BERT, "embedding_size": 16}, _masked_tokens),
    ("FalconForCausalLM", {**_BERT, "alibi": False}, _causal),
    ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 99}, _causal),
    ("GPTNeoXForCausalLM", _NEOX, _causal),
    ("GemmaForCausalLM", _HEAD16, _causal),
    ("LlamaForCausalLM", _LLAMA, _causal),
    ("MPNetModel", _BERT, _masked_tokens),
    ("MambaForCausalLM", _MAMBA, _causal),
    ("MistralForCausalLM", _LLAMA, _causal),
    ("MixtralForCausalLM", {**_LLAMA, "num_local_experts": 2}, _causal),
    ("ModernBertModel", {**_BERT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
                         "cls_token_id": 1, "sep_token_id": 2}, _masked_tokens),
    ("OPTForCausalLM", {**_BERT, "ffn_dim": 64, "word_embed_proj_dim": 32}, _causal),
    ("PhiForCausalLM", _LLAMA, _causal),
    ("Qwen3ForCausalLM", _HEAD16, _causal),
    ("RobertaForSequenceClassification", _BERT, _masked_tokens),
    ("SegformerForImageClassification",
     {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1],
      "num_attention_heads": [1, 2, 2, 4]}, _pixels),
    ("SwinForImageClassification", _SWIN, _pixels),
    ("T5ForConditionalGeneration",
     {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99},
     _two_sided),
    ("ViTForImageClassification", _VISION, _pixels),
    ("Wav2Vec2ForCTC", {**_BERT, "conv_dim": [16, 16], "conv_stride": [5, 2],
                        "conv_kernel": [10, 3], "num_feat_extract_layers": 2,
                        "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
     _waveform),
    ("WhisperForConditionalGeneration",
     {**_SEQ2SEQ, "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 16},
     _spectrogram),
    ("XLMRobertaModel", _BERT, _masked_tokens),
]  # fmt: skip


def _transformer(name: str, options: dict[str, Any], inputs: Callable[[], dict[str, Any]]) -> Built:
    import transformers

    kind = getattr(transformers, name)
    return kind(kind.config_class(**options)), (), inputs()


def transformers_models() -> list[Architecture]:
    """Small random configurations."""
    return [
        Architecture("transformers", name, name, partial(_transformer, name, options, inputs))
        for name, options, inputs in _TRANSFORMERS
    ]


# -- others ------------------------------------------------------------------------------------


class Crnn(nn.Module):
    """Text recognition after Shi et al., "An end-to-end trainable neural network", 2015."""

    def __init__(self, classes: int = 11) -> None:
        super().__init__()
        widths, layers = (1, 16, 32, 32), list[nn.Module]()
        for inner, outer in pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.first = nn.LSTM(128, 24, bidirectional=True)
        self.second = nn.LSTM(24, 24, bidirectional=True)
        self.between, self.leave = nn.Linear(48, 24), nn.Linear(48, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        y = y.reshape(y.shape[0], y.shape[1] * y.shape[2], y.shape[3]).permute(2, 0, 1)
        y = self.leave(self.second(self.between(self.first(y)[0]))[0])
        return y.permute(1, 0, 2)


class Edsr(nn.Module):
    """Super-resolution after Lim et al., "Enhanced deep residual networks", 2017."""

    def __init__(self, width: int = 16, blocks: int = 3, scale: int = 2) -> None:
        super().__init__()

        def conv(inner: int, outer: int) -> nn.Conv2d:
            return nn.Conv2d(inner, outer, 3, padding=1)

        self.head, self.tail = conv(3, width), conv(width, 3)
        self.body = nn.ModuleList(
            nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width)) for _ in range(blocks)
        )
        self.up = nn.Sequential(conv(width, width * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = y = self.head(x)
        for block in self.body:
            y = y + 0.1 * block(y)
        return self.tail(self.up(x + y))


def _yolo(name: str) -> Built:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(f"{name}.yaml", verbose=False), (torch.randn(1, 3, 64, 64),), {}


_BACKBONE = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "embedding_size": 8,
             "layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]}  # fmt: skip


def _detr() -> Built:
    import transformers

    config = transformers.DetrConfig(
        backbone_config=transformers.ResNetConfig(**{**_BACKBONE, "out_features": ["stage4"]}),
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=32,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=8,
    )  # fmt: skip
    return transformers.DetrForObjectDetection(config), (torch.randn(1, 3, 64, 64),), {}


def _rt_detr() -> Built:
    import transformers

    config = transformers.RTDetrConfig(
        backbone_config=transformers.RTDetrResNetConfig(**_BACKBONE),
        encoder_in_channels=[16, 24, 32], encoder_hidden_dim=32, d_model=32, decoder_layers=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, encoder_attention_heads=4, num_queries=8,
        decoder_attention_heads=4, decoder_in_channels=[32, 32, 32], num_denoising=0,
    )  # fmt: skip
    return transformers.RTDetrForObjectDetection(config), (torch.randn(1, 3, 64, 64),), {}


def _smp() -> Built:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None), (torch.randn(1, 3, 64, 64),), {}


def _timm_sam() -> Built:
    import timm

    model = timm.create_model(
        "samvit_base_patch16", pretrained=False, img_size=64, embed_dim=32, depth=2, num_heads=4,
        window_size=2, global_attn_indexes=(1,), neck_chans=16,
    )  # fmt: skip
    return model, (torch.randn(1, 3, 64, 64),), {}


def _sam() -> Built:
    import transformers

    config = transformers.SamVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8,
        window_size=3, output_channels=16, global_attn_indexes=[1], num_pos_feats=16, mlp_dim=64,
    )  # fmt: skip
    return transformers.SamVisionModel(config), (torch.randn(1, 3, 64, 64),), {}


def others() -> list[Architecture]:
    """Detectors, decoders and readers of other packages, and two that have none."""
    found: list[tuple[str, str, Callable[[], Built]]] = [
        ("ultralytics", "yolov8n", partial(_yolo, "yolov8n")),
        ("reader", "crnn", partial(_plain, Crnn, 1, 32, 64)),
        ("super-resolution", "edsr", partial(_plain, Edsr, 3, 16, 16)),
        ("transformers", "DetrForObjectDetection", _detr),
        ("transformers", "RTDetrForObjectDetection", _rt_detr),
        ("transformers", "SamVisionModel", _sam),
        ("timm", "samvit_base_patch16", _timm_sam),
        ("segmentation-models-pytorch", "Unet", _smp),
    ]
    return [Architecture("others", family, name, build) for family, name, build in found]


def _plain(kind: type[nn.Module], *shape: int) -> Built:
    return kind(), (torch.randn(2, *shape),), {}


SUITES: dict[str, Callable[[], list[Architecture]]] = {
    "others": others,
    "torchvision": torchvision,
    "timm": timm_families,
    "transformers": transformers_models,
}
