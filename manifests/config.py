"""The one configuration model: what a run is, from TOML file and command line alike, frozen and strict.

`jobs/cli.py` turns each field into an option of the same name; every stage gets the whole object and reads
the fields it owns. Request settings (`height` … `strength`) that stay None fall to the task's own default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from manifests import storage

ImageFormat = Literal["png", "jpg", "webp"]

#: As `embeddings`: no store.
NO_EMBEDDINGS = "none"


class RunConfig(BaseModel):
    """Settings of one run. Unknown keys are refused; the object cannot be changed after it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: Annotated[
        tuple[str, ...], Field(min_length=1, description="Parquet manifests: files, globs, folders or URLs")
    ]
    output: Annotated[str, Field(min_length=1, description="output folder or URL (s3://…)")]
    checkpoint: Annotated[
        str,
        Field(
            description="'demo', or what holds kandinsky-2-1-prior, kandinsky-2-1, kandinsky-2-1-inpaint: a folder, a "
            "URL (s3://…), or an owner on the Hugging Face Hub (kandinsky-community/, OWNER@REVISION/)"
        ),
    ] = "demo"
    device: Annotated[
        Literal["auto", "ascend", "cpu"],
        Field(description="'auto' takes Ascend where the cluster has NPU resources, else the CPU"),
    ] = "auto"

    embeddings: Annotated[
        str | None,
        Field(
            min_length=1,
            description="store of the prior's embeddings, a folder or URL that runs share; 'none' keeps none "
            "(default: _run/embeddings of the output)",
        ),
    ] = None

    stage: Annotated[
        Literal["all", "prior", "decode"],
        Field(description="'prior' fills the embedding store and stops, 'decode' makes images of what is in it"),
    ] = "all"

    batch_size: Annotated[int, Field(ge=1, le=256, description="samples per device call")] = 4
    shard_size: Annotated[int, Field(ge=1, le=1_000_000, description="samples per output shard, at most")] = 1000
    seed: Annotated[int, Field(ge=0, le=2**64 - 1, description="job seed, for rows without a seed of their own")] = 0

    height: Annotated[int | None, Field(description="pixels, a multiple of 64; for rows that leave it null")] = None
    width: Annotated[int | None, Field(description="pixels, a multiple of 64; for rows that leave it null")] = None
    steps: Annotated[int | None, Field(description="decoder steps, for rows that leave it null")] = None
    guidance_scale: Annotated[float | None, Field(description="decoder guidance, for rows that leave it null")] = None
    prior_steps: Annotated[int | None, Field(description="prior steps, for rows that leave it null")] = None
    prior_guidance_scale: Annotated[float | None, Field(description="prior guidance, for rows that leave it null")] = (
        None
    )
    strength: Annotated[float | None, Field(description="img2img strength in (0, 1], for rows that leave it null")] = (
        None
    )

    prior_actors: Annotated[
        str, Field(pattern=r"^(auto|[1-9]\d*(:[1-9]\d*)?)$", description="size of the prior pool: auto, N or MIN:MAX")
    ] = "auto"
    decoder_actors: Annotated[
        str, Field(pattern=r"^(auto|[1-9]\d*(:[1-9]\d*)?)$", description="size of the decoder pool: auto, N or MIN:MAX")
    ] = "auto"
    times_of: Annotated[
        str | None,
        Field(
            description="output of an earlier run whose measured times give the price (plan.py) and decide how many "
            "devices the prior gets (default: --output, where it has any)"
        ),
    ] = None
    share_devices: Annotated[
        bool,
        Field(description="Ascend: prior actors share the cards of decoder actors; needs --device-memory"),
    ] = False
    device_memory: Annotated[
        float | None, Field(ge=8, description="GiB of memory of one Ascend card, which shared cards are divided by")
    ] = None
    deterministic: Annotated[
        bool, Field(description="Ascend: slower kernels that give the same bits in every run; the CPU's do anyway")
    ] = False
    graph: Annotated[
        bool,
        Field(description="run the models as compiled graphs; each new shape is compiled before its first batch"),
    ] = False
    device_timeout: Annotated[
        float,
        Field(gt=0, description="seconds that one call of a stage may take, compilation by --graph not counted"),
    ] = 1800.0

    input_timeout: Annotated[
        float, Field(gt=0, description="seconds that reading one input image may take before its row fails")
    ] = 60.0

    shards: Annotated[
        str,
        Field(
            pattern=r"^[1-9]\d*/[1-9]\d*$",
            description="I/N: make every N-th shard of the plan from the I-th on; N jobs with one output make all",
        ),
    ] = "1/1"
    append: Annotated[
        bool, Field(description="the manifest has new rows at its end; make them in new shards of the same output")
    ] = False
    into_existing: Annotated[
        bool,
        Field(description="begin in a folder, or a store, that holds files of somebody else; none of them is replaced"),
    ] = False
    retry_errors: Annotated[
        bool, Field(description="try the rows again that failed in an earlier start, except in validation")
    ] = False
    grace: Annotated[
        float, Field(ge=0, description="seconds that batches in flight may take after SIGTERM or Ctrl-C")
    ] = 60.0

    dedupe: Annotated[
        bool,
        Field(
            description="compute rows of the same content and given seed once, as far as they lie within 100,000 rows, "
            "and write the image for each id"
        ),
    ] = False
    image_format: Annotated[ImageFormat, Field(description="file format of the images")] = "png"
    quality: Annotated[int, Field(ge=1, le=100, description="quality of jpg and webp")] = 95
    dump_latents: Annotated[
        bool, Field(description="keep each image's latents in the shard, as {key}.latent.npy; for debugging")
    ] = False

    @property
    def embeddings_url(self) -> str | None:
        """Where the embedding store is; None without one."""
        if self.embeddings is None:
            return storage.join(self.output, "_run/embeddings")
        return None if self.embeddings == NO_EMBEDDINGS else self.embeddings

    @property
    def share(self) -> tuple[int, int]:
        """Which of how many shares of the plan this job makes, from 0."""
        index, _, count = self.shards.partition("/")
        return int(index) - 1, int(count)
