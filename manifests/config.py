"""The one configuration model: what a run is, from TOML file and command line alike, frozen and strict.

`jobs/cli.py` turns each field into an option of the same name, which stands in `--help` as the `Option` beside the
field says; every stage gets the whole object and reads the fields it owns. Request settings (`height` … `strength`)
that stay None fall to the task's own default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from manifests import storage
from manifests.call_limit import CallLimit
from manifests.scores import NAMES, PATTERN, needs_clip, parse
from manifests.scores import NONE as NO_SCORES

ImageFormat = Literal["png", "jpg", "webp"]

#: As `embeddings`: no store.
NO_EMBEDDINGS = "none"

#: Headings of `--help`, in their order.
OptionGroup = Literal[
    "what to make",
    "where",
    "model",
    "values for rows that leave them null",
    "devices",
    "faults",
    "output format",
]


_FOR_ROWS: OptionGroup = "values for rows that leave them null"


def on_or_off(given: object) -> object:
    """A switch may be written as true or false, which it once was."""
    return ("on" if given else "off") if isinstance(given, bool) else given


@dataclass(frozen=True)
class Option:
    """How `--help` shows a field.

    Attributes:
        group: the heading it stands under.
        metavar: what is wanted as its value. None for a field that is a flag or lists its choices.
        flag: the value where the option is given without one; None: it needs one. `--no-` before it is "off".
    """

    group: OptionGroup
    metavar: str | None = None
    flag: str | None = None


class RunConfig(BaseModel):
    """Settings of one run. Unknown keys are refused; the object cannot be changed after it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="Parquet manifests: files, globs, folders or URLs"),
        Option("what to make", "PATH_OR_URL"),
    ]
    stage: Annotated[
        Literal["all", "prior", "decode"],
        Field(description="'prior' fills the embedding store and stops, 'decode' makes images of what is in it"),
        Option("what to make"),
    ] = "all"
    shards: Annotated[
        str,
        Field(
            pattern=r"^[1-9]\d*/[1-9]\d*$",
            description="share I/N of the plan: every N-th shard from the I-th on; N jobs with one output make all",
        ),
        Option("what to make", "I/N"),
    ] = "1/1"
    append: Annotated[
        bool,
        Field(description="the manifest has new rows at its end; make them in new shards of the same output"),
        Option("what to make"),
    ] = False
    dedupe: Annotated[
        bool,
        Field(
            description="compute rows of the same content and given seed once, as far as they lie within 100,000 rows, "
            "and write the image for each id"
        ),
        Option("what to make"),
    ] = False

    output: Annotated[
        str,
        Field(min_length=1, description="output folder or URL (s3://…)"),
        Option("where", "FOLDER_OR_URL"),
    ]
    embeddings: Annotated[
        str | None,
        Field(
            min_length=1,
            description="store of the prior's embeddings, a folder or URL that runs share; 'none' keeps none "
            "(default: _run/embeddings of the output)",
        ),
        Option("where", "FOLDER_OR_URL"),
    ] = None

    into_existing: Annotated[
        bool,
        Field(description="begin in a folder, or a store, that holds files of somebody else; none of them is replaced"),
        Option("where"),
    ] = False
    checkpoint: Annotated[
        str,
        Field(
            description="'demo', or what holds kandinsky-2-1-prior, kandinsky-2-1, kandinsky-2-1-inpaint: a folder, a "
            "URL (s3://…), or an owner on the Hugging Face Hub (kandinsky-community/, OWNER@REVISION/)"
        ),
        Option("model", "FOLDER_URL_OR_OWNER"),
    ] = "demo"

    seed: Annotated[
        int,
        Field(ge=0, le=2**64 - 1, description="job seed; with a row's id it makes the seed of that row"),
        Option(_FOR_ROWS, "N"),
    ] = 0
    height: Annotated[
        int | None,
        Field(description="of the image, a multiple of 64"),
        Option(_FOR_ROWS, "PIXELS"),
    ] = None
    width: Annotated[
        int | None,
        Field(description="of the image, a multiple of 64"),
        Option(_FOR_ROWS, "PIXELS"),
    ] = None
    steps: Annotated[int | None, Field(description="decoder steps"), Option(_FOR_ROWS, "N")] = None
    guidance_scale: Annotated[float | None, Field(description="decoder guidance"), Option(_FOR_ROWS, "SCALE")] = None
    prior_steps: Annotated[int | None, Field(description="prior steps"), Option(_FOR_ROWS, "N")] = None
    prior_guidance_scale: Annotated[float | None, Field(description="prior guidance"), Option(_FOR_ROWS, "SCALE")] = (
        None
    )
    strength: Annotated[
        float | None,
        Field(description="img2img strength in (0, 1]"),
        Option(_FOR_ROWS, "FRACTION"),
    ] = None

    device: Annotated[
        Literal["auto", "ascend", "cpu"],
        Field(description="'auto' takes Ascend where the cluster has NPU resources, else the CPU"),
        Option("devices"),
    ] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256, description="samples per device call"), Option("devices", "N")] = 4
    batch_pixels: Annotated[
        int | None,
        Field(
            ge=4096,
            description="height x width of all samples of a device call, at most, beside --batch-size: 4194304 is 16 "
            "images of 512 x 512 or 4 of 1024 x 1024; a larger image has a call to itself (default: any number)",
        ),
        Option("devices", "N"),
    ] = None
    prior_actors: Annotated[
        str,
        Field(pattern=r"^(auto|[1-9]\d*(:[1-9]\d*)?)$", description="size of the prior pool: auto, N or MIN:MAX"),
        Option("devices", "MIN:MAX"),
    ] = "auto"
    decoder_actors: Annotated[
        str,
        Field(pattern=r"^(auto|[1-9]\d*(:[1-9]\d*)?)$", description="size of the decoder pool: auto, N or MIN:MAX"),
        Option("devices", "MIN:MAX"),
    ] = "auto"
    schedule: Annotated[
        Literal["auto", "pools", "phases"],
        Field(
            description="'pools' divides the devices between prior and decoder, 'phases' has all of them embed a piece "
            "of the manifest and then decode it, 'auto' takes what keeps more of them busy"
        ),
        Option("devices"),
    ] = "auto"
    times_of: Annotated[
        str | None,
        Field(
            description="output of an earlier run whose measured times give the price (plan.py) and decide how many "
            "devices the prior gets (default: --output, where it has any)"
        ),
        Option("devices", "FOLDER_OR_URL"),
    ] = None
    graph: Annotated[
        Literal["auto", "on", "off"],
        BeforeValidator(on_or_off),
        Field(
            description="run models as compiled graphs: 'auto' where a shape has so many batches that compiling it "
            "pays, 'on' (also --graph alone) for all; a shape is compiled before its first batch"
        ),
        Option("devices", flag="on"),
    ] = "auto"
    graph_compiler: Annotated[
        Literal["O0", "O1", "GE"],
        Field(
            description="Ascend: how graphs are compiled: O0 operator by operator, O1 with operators fused, GE by "
            "CANN's graph engine; nobody has measured the last two"
        ),
        Option("devices"),
    ] = "O0"
    attention: Annotated[
        Literal["auto", "plain", "fused"],
        Field(
            description="Ascend: 'fused' takes one operator for it, 'plain' does not; 'auto' takes it where a small "
            "case on the device shows that it runs and agrees; the CPU's is plain"
        ),
        Option("devices"),
    ] = "auto"
    deterministic: Annotated[
        bool,
        Field(description="Ascend: slower kernels that give the same bits in every run; the CPU's do anyway"),
        Option("devices"),
    ] = False
    share_devices: Annotated[
        bool,
        Field(description="Ascend: prior actors share the cards of decoder actors; needs --device-memory"),
        Option("devices"),
    ] = False
    device_memory: Annotated[
        float | None,
        Field(ge=8, description="memory of one Ascend card, which shared cards are divided by"),
        Option("devices", "GIB"),
    ] = None

    device_timeout: Annotated[
        float,
        Field(gt=0, description="that one call of a stage may take, compilation of graphs not counted"),
        Option("faults", "SECONDS"),
    ] = 1800.0
    input_timeout: Annotated[
        float,
        Field(gt=0, description="that reading one input image may take before its row fails"),
        Option("faults", "SECONDS"),
    ] = 60.0
    grace: Annotated[
        float,
        Field(ge=0, description="that batches in flight may take after SIGTERM or Ctrl-C"),
        Option("faults", "SECONDS"),
    ] = 60.0
    retry_errors: Annotated[
        bool,
        Field(description="try the rows again that failed in an earlier start, except in validation"),
        Option("faults"),
    ] = False

    max_failed: Annotated[
        str | None,
        Field(
            pattern=r"^(\d+|(\d{1,2}(\.\d+)?|100)%)$",
            description="most images that may fail, N or P% of this job's share, before the run ends; those of earlier "
            "starts count too, and those that --retry-errors tries again only when they fail again (default: any "
            "number, unless the first 1,000 of a start all fail for one reason; 100% goes on even then)",
        ),
        Option("faults", "N|P%"),
    ] = None

    image_format: Annotated[ImageFormat, Field(description="file format of the images"), Option("output format")] = (
        "png"
    )
    quality: Annotated[
        int, Field(ge=1, le=100, description="of jpg and webp, 1 to 100"), Option("output format", "N")
    ] = 95
    mark: Annotated[
        bool,
        Field(description="say in the images' XMP metadata that a model has made them (IPTC DigitalSourceType)"),
        Option("output format"),
    ] = True
    scores: Annotated[
        str,
        Field(
            pattern=PATTERN,
            description=f"columns of the index that say how images came out: {', '.join(NAMES)}, with commas "
            "between, or 'all'",
        ),
        Option("output format", "NAMES"),
    ] = NO_SCORES
    aesthetic_weights: Annotated[
        str | None,
        Field(
            min_length=1,
            description="LAION's aesthetic predictor, for aesthetic_score: .safetensors, .npz or PyTorch's .pth, of "
            "which nothing is run",
        ),
        Option("output format", "PATH_OR_URL"),
    ] = None
    keep_clip: Annotated[
        bool,
        Field(
            description="keep CLIP's embeddings of the images in _run/clip, as clip-retrieval and its indexes read them"
        ),
        Option("output format"),
    ] = False
    shard_size: Annotated[
        int, Field(ge=1, le=1_000_000, description="samples per output shard, at most"), Option("output format", "N")
    ] = 1000
    report: Annotated[
        bool,
        Field(description="make _run/report.html at the end: what came of the run, with a sample of its images"),
        Option("output format"),
    ] = True
    dump_latents: Annotated[
        bool,
        Field(description="keep each image's latents in the shard, as {key}.latent.npy; for debugging"),
        Option("output format"),
    ] = False

    @property
    def embeddings_url(self) -> str | None:
        """Where the embedding store is; None without one."""
        if self.embeddings is None:
            return storage.join(self.output, "_run/embeddings")
        return None if self.embeddings == NO_EMBEDDINGS else self.embeddings

    @property
    def call_limit(self) -> CallLimit:
        """How many samples a device call may have."""
        return CallLimit(self.batch_size, self.batch_pixels)

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores that images get."""
        return parse(self.scores, self.aesthetic_weights is not None)

    @property
    def asks_clip(self) -> bool:
        """Images go through the checkpoint's CLIP."""
        return self.keep_clip or needs_clip(self.score_names)

    @property
    def share(self) -> tuple[int, int]:
        """Which of how many shares of the plan this job makes, from 0."""
        index, _, count = self.shards.partition("/")
        return int(index) - 1, int(count)
