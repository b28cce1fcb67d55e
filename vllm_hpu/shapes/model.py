"""The sizes of a model that decide what a step costs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from vllm_hpu.errors import ConfigurationError

_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelShape:
    """A decoder of equal layers: attention with grouped heads, then a (gated) feed-forward part.

    layers, hidden       number of layers, width of the residual stream
    heads, kv_heads      query heads and key-value heads of a layer
    head_size            width of a head
    intermediate         width of the feed-forward part, of one expert if there are several
    vocab                entries of the vocabulary
    products             matrix products of the feed-forward part: 3 when it is gated, else 2
    experts              experts of a layer; 1 without a choice between experts
    experts_per_token    experts that compute a token
    parameter_bytes      bytes of a weight
    activation_bytes     bytes of an element between operators
    kv_bytes             bytes of an element of the KV cache
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocab: int
    products: int = 3
    experts: int = 1
    experts_per_token: int = 1
    parameter_bytes: int = 2
    activation_bytes: int = 2
    kv_bytes: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(
                    f"{field.name} of the model is {value!r}",
                    "Costs can only be computed for whole numbers of at least 1",
                    "Check the model's config.json, or choose VLLM_BUCKETING_STRATEGY=exp, which "
                    "needs no costs",
                )
        if self.experts_per_token > self.experts:
            raise ConfigurationError(
                f"The model computes a token in {self.experts_per_token} of {self.experts} experts",
                do="Check the model's config.json",
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From the names that Hugging Face's config.json files use.

        Layers of other kinds (state space, compressed attention, a few dense layers among experts)
        are counted like the others, so the cost of such a model is an approximation.

        Raises:
            ConfigurationError: a size is missing or no whole number of at least 1.
        """
        hidden = _first(config, "hidden_size", "n_embd", "d_model")
        heads = _first(config, "num_attention_heads", "n_head")
        experts = _optional(config, 1, "num_local_experts", "num_experts", "n_routed_experts")
        dense = "intermediate_size", "ffn_dim", "n_inner"
        width = ("moe_intermediate_size", *dense) if experts > 1 else dense
        dtype = _DTYPE_BYTES.get(str(_any(config, "dtype", "torch_dtype")).rpartition(".")[2], 2)
        return cls(
            layers=_first(config, "num_hidden_layers", "n_layer"),
            hidden=hidden,
            heads=heads,
            kv_heads=_optional(config, heads, "num_key_value_heads"),
            head_size=_optional(config, hidden // heads, "head_dim"),
            intermediate=_optional(config, 4 * hidden, *width),
            vocab=_first(config, "vocab_size"),
            products=3 if str(_any(config, "hidden_act")) in ("silu", "swiglu") else 2,
            experts=experts,
            experts_per_token=_optional(config, 1, "num_experts_per_tok", "moe_topk"),
            parameter_bytes=dtype,
            activation_bytes=dtype,
            kv_bytes=dtype,
        )

    def shard(self, ranks: int) -> Self:
        """What each of ``ranks`` tensor-parallel ranks computes, rounded up."""
        return replace(
            self,
            heads=-(-self.heads // ranks),
            kv_heads=-(-self.kv_heads // ranks),
            intermediate=-(-self.intermediate // ranks),
            vocab=-(-self.vocab // ranks),
        )

    @property
    def attention_weights(self) -> int:
        """Weights of a layer's projections to queries, keys and values and back."""
        return self.hidden * self.head_size * 2 * (self.heads + self.kv_heads)

    @property
    def expert_weights(self) -> int:
        """Weights of one expert of a layer; of the whole feed-forward part without experts."""
        return self.products * self.hidden * self.intermediate

    @property
    def router_weights(self) -> int:
        """Weights that choose a layer's experts; 0 without a choice."""
        return self.hidden * self.experts if self.experts > 1 else 0


def _any(config: Mapping[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _optional(config: Mapping[str, Any], default: int, *names: str) -> int:
    value = _any(config, *names)
    return default if value is None else value


def _first(config: Mapping[str, Any], *names: str) -> int:
    value = _any(config, *names)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(
            f"The model's configuration says {value!r} for {names[0]}",
            "The cost of a graph follows from it",
            "Choose VLLM_BUCKETING_STRATEGY=exp, which needs no costs",
        )
    return value
