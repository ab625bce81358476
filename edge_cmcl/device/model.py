"""One generation, opened to be used: features, embeddings, fusion of several sensors, labels."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_cmcl.bundle import Generation, Loaded, ModalityRecord
from edge_cmcl.bundle.collect import hold
from edge_cmcl.bundle.contents import read_adapter, read_labels, read_origins, read_reference
from edge_cmcl.bundle.payloads import Adapter, LabelFeatures
from edge_cmcl.continual.origin import Origins
from edge_cmcl.device.encoders import Encoder, GraphEncoder, UniversalEncoder, Windows
from edge_cmcl.device.features import Statistics, standardise, unit
from edge_cmcl.device.providers import (
    TENSORRT_PROVIDER,
    ProviderWarning,
    check_loaded,
    engine_folder,
    is_built,
    name_of,
    providers_of,
    shared_providers,
    usable,
)
from edge_cmcl.device.sessions import CPU_PROVIDER, Provider, open_session
from edge_cmcl.device.text import TEXT, label_features
from edge_cmcl.durable import make_folder
from edge_cmcl.errors import ModelError

Array = NDArray[np.float32]


class Model:
    """A generation ready to embed. Blobs are read and verified when they are first needed.

    As long as it exists, its generation is not collected (`bundle.collect`).

    Args:
        loaded: the generation, from a store or a bundle.
        threads: CPU threads of one operator; 0 for one per core.
        providers: onnxruntime execution providers, the preferred one first; by default those of the target that each
            encoder was exported for.

    Attributes:
        held: False where a collection had removed it before, or its file system has no locks.
        made: weight and bytes of older adapters that are not stored yet, by digest; see `renewal`.
        renewed: sensors whose statistics are other than those stored; see `renewal`.
    """

    def __init__(self, loaded: Loaded, *, threads: int = 0, providers: Sequence[str] | None = None) -> None:
        self.loaded = loaded
        held = hold(loaded.layout, loaded.digest)
        self.held = held is not None
        if held is not None:
            weakref.finalize(self, os.close, held)
        self._threads = threads
        self._providers = providers
        self._adapters: dict[str, Adapter] = {}
        self._encoders: dict[str, Encoder] = {}
        self._in_use: dict[str, str] = {}
        self.made: dict[str, tuple[Array, bytes]] = {}
        self.renewed: tuple[str, ...] = ()

    @property
    def generation(self) -> Generation:
        """The generation's document."""
        return self.loaded.generation

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of all modalities, "text" included where labels were learned."""
        return tuple(sorted(self.generation.modalities))

    def record(self, modality: str) -> ModalityRecord:
        """Return what the generation says of `modality`.

        Raises:
            ModelError: the generation does not know it.
        """
        try:
            return self.generation.modalities[modality]
        except KeyError:
            raise ModelError(
                f"this generation has not learned {modality!r}",
                expected=f"one of {', '.join(self.modalities)}",
                got=modality,
                hint=f"`edge-cmcl update --modality {modality}` teaches it",
            ) from None

    def adapter(self, modality: str) -> Adapter:
        """Return W and the statistics of `modality`."""
        if modality not in self._adapters:
            self.record(modality)
            self._adapters[modality] = read_adapter(self.loaded, modality)
        return self._adapters[modality]

    def reference(self, digest: str) -> Array:
        """Return the weight of the older adapter `digest`, which an origin refers to."""
        return read_reference(self.loaded, digest).weight

    def origins(self, modality: str) -> Origins:
        """Return the origins of `modality`: what its adapter has learned."""
        self.record(modality)
        return read_origins(self.loaded, modality)

    @cached_property
    def universal_session(self) -> ort.InferenceSession:
        """The shared graph of the universal encoder."""
        wanted = shared_providers(self.generation.modalities)
        return self._session(self.generation.universal, "the universal encoder", wanted)

    @cached_property
    def step_session(self) -> ort.InferenceSession:
        """The training step; on the CPU whatever the target, where its small products are faster (measured, README)."""
        return self._session(self.generation.step, "the training step", [CPU_PROVIDER])

    @cached_property
    def labels(self) -> LabelFeatures:
        """The label names that were learned, with their features; none where no step with labels was.

        Raises:
            ModelError: no step with labels has been learned.
        """
        found = read_labels(self.loaded) if TEXT in self.generation.modalities else None
        if found is None:
            raise ModelError(
                "no labels have been learned",
                expected="a generation that learned a step with labels",
                hint="run `edge-cmcl update` on pairs that have a label, or train the base with a text pair",
            )
        return found

    def encoder(self, modality: str) -> Encoder:
        """Return the frozen encoder of a sensor."""
        if modality not in self._encoders:
            self._encoders[modality] = self.make_encoder(modality, self.record(modality))
        return self._encoders[modality]

    def make_encoder(self, modality: str, record: ModalityRecord) -> Encoder:
        """Return the encoder that `record` describes, for a modality this generation may not have learned yet.

        Raises:
            ModelError: the modality is text, or its graph cannot be used.
        """
        if record.encoder == "universal":
            return UniversalEncoder(self.universal_session, modality, record)
        if record.encoder_blob is None:
            raise ModelError(f"{modality} has no encoder", expected="a sensor", got=record.kind)
        wanted = providers_of(record, record.encoder_blob)
        session = self._session(record.encoder_blob, f"the encoder of {modality}", wanted)
        return GraphEncoder(session, modality, record)

    def provider(self, modality: str) -> str:
        """Return the execution provider that runs the encoder of a sensor here."""
        record = self.record(modality)
        self.encoder(modality)
        return self._in_use[record.encoder_blob or ""]

    def features(self, modality: str, windows: Windows) -> Array:
        """Return unit features (n, width) of `windows` (n, T, C) or (n, T, H, W) in recorded units.

        Raises:
            ModelError: the modality is unknown.
            DataError: the windows do not fit it.
        """
        return standardise(self.encoder(modality)(windows), statistics_of(self.adapter(modality)))

    def embed(self, modality: str, windows: Windows) -> Array:
        """Return unit embeddings (n, d) float32 of `windows`; raises as `features`."""
        return self.embed_outputs(modality, self.encoder(modality)(windows))

    def embed_outputs(self, modality: str, raw: Array) -> Array:
        """Return unit embeddings (n, d) float32 of an encoder's raw outputs (n, width)."""
        adapter = self.adapter(modality)
        return unit(standardise(raw, statistics_of(adapter)) @ adapter.weight.T)

    def embed_labels(self, names: Sequence[str] | None = None) -> Array:
        """Return unit embeddings (len(names), d) of class names, by default of all labels learned.

        Raises:
            ModelError: no labels have been learned.
        """
        features = self.labels.features if names is None else label_features(names)
        return unit(features @ self.adapter(TEXT).weight.T)

    def _session(self, digest: str, name: str, wanted: Sequence[Provider]) -> ort.InferenceSession:
        if self._providers is not None:
            chosen = {name_of(provider): provider for provider in wanted}
            wanted = [chosen.get(provider, provider) for provider in self._providers]
        found = usable(wanted, name)
        if found and name_of(found[0]) == TENSORRT_PROVIDER and not is_built(digest):
            make_folder(engine_folder(digest))
            told = f"TensorRT builds its engine of {name} now, which takes minutes"
            warnings.warn(f"{told}; `edge-cmcl prebuild` does it ahead", ProviderWarning, stacklevel=2)
        graph = self.loaded.read(digest)
        session = open_session(graph, name, threads=self._threads, providers=found or [CPU_PROVIDER])
        self._in_use[digest] = check_loaded(session, found, name)
        return session


def statistics_of(adapter: Adapter) -> Statistics:
    """Return the statistics of an adapter; those of text leave features as they are."""
    width = adapter.weight.shape[1]
    if adapter.mean is None or adapter.std is None:
        return Statistics(np.zeros(width, np.float32), np.ones(width, np.float32))
    return Statistics(adapter.mean, adapter.std)


def fuse(embeddings: Mapping[str, Array], valid: Mapping[str, NDArray[np.bool_]]) -> tuple[Array, NDArray[np.bool_]]:
    """Return joint embeddings (n, d), the normalised mean of the sensors present, and a bool (n,), who has one.

    Args:
        embeddings: per sensor unit embeddings (n, d).
        valid: per sensor a bool (n,), rows in which it was recorded.
    """
    total = sum(rows * valid[name][:, None] for name, rows in embeddings.items())
    present = np.any([valid[name] for name in embeddings], axis=0)
    return unit(np.asarray(total, dtype=np.float32)), present
