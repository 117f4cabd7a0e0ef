"""AddSR's reference vectors: networks, image tokens and tags, by the project's code."""

from yoda_cli.models.nets import seesr
from yoda_cli.models.nets.filling import built


def part(golden, prefix):
    return {
        key.removeprefix(prefix): value
        for key, value in golden.state.items()
        if key.startswith(prefix)
    }


def seesr_net(golden, name, make):
    """The golden's U-Net or ControlNet; heads and groups are not in the tensors."""
    told = golden.config["config"]["unet"]
    state = part(golden, f"{name}.")
    config = seesr.infer_seesr(state, tuple(told["attention_head_dim"]), told["norm_num_groups"])
    assert config.channels == tuple(told["block_out_channels"])
    assert config.blocks == told["layers_per_block"]
    assert config.context == told["cross_attention_dim"]
    assert config.image_context == golden.config["config"]["image_cross_attention_dim"]
    widths = golden.config["config"]["controlnet"]["conditioning_embedding_out_channels"]
    assert config.stem == (tuple(widths) if name == "controlnet" else ())
    return built(lambda: make(config), seesr.seesr_name, state, "golden")


def nets(golden):
    unet = seesr_net(golden, "unet", seesr.make_unet)
    control = seesr_net(golden, "controlnet", seesr.make_control)
    inputs, out = golden.inputs, {}

    def controls(x, t, text, tokens, image, scale=1.0):
        return control(
            x, t, text, image, scale, cross_attention_kwargs={seesr.TOKENS: tokens},
            return_dict=False,
        )  # fmt: skip

    def eps(x, t, text, tokens, steer=(None, None)):
        return unet(
            x, t, text, cross_attention_kwargs={seesr.TOKENS: tokens}, return_dict=False,
            down_block_additional_residuals=steer[0], mid_block_additional_residual=steer[1],
        )[0]  # fmt: skip

    seen = [inputs[name] for name in ("x", "t", "text", "features")]
    image = inputs["image"]
    out["cond_embedding"] = control.controlnet_cond_embedding(image)
    down, middle = controls(*seen, image)
    out |= {f"control.down.{i}": value for i, value in enumerate(down)}
    out["control.mid"] = middle
    out["eps"] = eps(*seen, (down, middle))
    out["eps_scale0.7"] = eps(*seen, controls(*seen, image, 0.7))
    out["eps_without_control"] = eps(*seen)
    blind = [*seen[:3], seen[3] * 0]
    out["eps_zero_features"] = eps(*blind, controls(*blind, image))
    odd = [inputs["odd.x"], *(value[:1] for value in seen[1:])]
    out["odd.eps"] = eps(*odd, controls(*odd, inputs["odd.image"]))
    return out


def dape(golden):
    told, state, image = golden.config["config"], golden.state, golden.inputs["image"]
    merged = seesr.merge_lora(state)
    plain = {key: value for key, value in state.items() if key in merged}
    net, without = (dape_net(golden, tensors) for tensors in (merged, plain))
    tagger = {
        key: value
        for key, value in merged.items()
        if not key.startswith(("visual_encoder.", "image_proj."))
    }
    config = seesr.infer_tagger(tagger, told["tagging"]["num_attention_heads"])
    assert config.layers == told["tagging"]["num_hidden_layers"]
    tags = built(lambda: seesr.Tagger(config), seesr.tagger_name, tagger, "golden")
    tokens = net(image)
    logits = tags(tokens)
    return {
        "swin": net.features(image),
        "features": tokens,
        "features_without_lora": without(image),
        "tag_logits": logits,
        "tags": (logits.sigmoid() > golden.inputs["class_threshold"]).long(),
    }


def dape_net(golden, state):
    told = golden.config["config"]
    own = {
        key: value
        for key, value in state.items()
        if key.startswith(("visual_encoder.", "image_proj.")) and not key.endswith(seesr.DERIVED)
    }
    config = seesr.infer_dape(own)
    for name, value in (
        ("size", "image_size"), ("patch", "patch"), ("window", "window_size"),
        ("width", "embed_dim"), ("tokens", "proj"),
    ):  # fmt: skip
        assert getattr(config, name) == told[value]
    assert (list(config.depths), list(config.heads)) == (told["depths"], told["num_heads"])
    net = built(lambda: seesr.DAPE(config), seesr.dape_name, own, "golden")
    net.make_derived()
    return net


KINDS = {
    "addsr_nets_forward": nets,
    "addsr_dape": dape,
}
