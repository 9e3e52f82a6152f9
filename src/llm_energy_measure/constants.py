"""Constants that several layers share: schema version, folder names, file name patterns and limits."""

# History of the format:
# - before 2.0.0: files had no version. An experiment was one folder with up to eight files. These folders cannot be
#   loaded, but `llm-energy-measure import` reads them.
# - 2.0.0: one JSON file per process and one per experiment. Optional fields were added later (host, GPU UUID, scope,
#   provenance, energy window, clock, launcher, origin, status, phases, sensors, library versions, sources,
#   completeness, attribution, findings, environment, state of the devices). They do not change the version, because
#   older readers can ignore them.
#   The first tool of the format always set these fields, but here they may be null: `backend`, `gpu_id`, `gpu_name`,
#   `config_name`, `model_name`, `timestamps.*`, `inference_metrics`, `compute_metrics`, and the numbers in the metrics.
#   A reader that allows no null in these fields cannot read records with unknown values. We write null and not a
#   placeholder, because a reader would take an energy of 0 J or a GPU named "unknown" for a measurement. If all values
#   are known, as in records of the first tool, these fields have no null (`tests/formats/test_strict_readers.py`).
# - 3.0.0: another branch of the format (January and February 2026). This branch adds fields to 2.0.0. We read its files
#   as 2.0.0.
# - 2.0 and 3.0 without a third number: files `result.json` with totals and no raw results. `import` reads these files.
# A change that older readers would misread needs a new major version and a step in `domain.schema.MIGRATIONS`.
SCHEMA_VERSION = "2.0.0"
"""Schema version of every new record."""

RESULTS_DIR_ENV = "LLM_ENERGY_MEASURE_RESULTS_DIR"
"""Environment variable with the results directory. The option `-o` or an argument takes precedence."""

FALLBACK_DIR_ENV = "LLM_ENERGY_MEASURE_FALLBACK_DIR"
"""Environment variable with the directory for results that cannot be saved in the results directory or the bucket."""

DEFAULT_RESULTS_DIR = "results"
"""Default results directory, relative to the working directory."""

DEFAULT_STRATEGY = "sum_energy_avg_throughput"
"""Name of the default aggregation strategy."""

RAW_DIR = "raw"
AGGREGATED_DIR = "aggregated"
TAGS_DIR = "tags"

MANIFEST_NAME = "manifest.json"

MAX_PROCESSES = 1_000_000
"""Maximum number of processes in an experiment. The limit keeps the list of missing processes short."""

PROCESS_FILE_PATTERN = r"process_(0|[1-9][0-9]{0,5})\.json"
"""File name of a raw result. Readers ignore all other names in the folder."""

SUPERSEDED_AGGREGATE_PATTERN = r"superseded-.+-[0-9]+\.json"
"""File name of a replaced aggregate that earlier releases kept. `security` refuses an id if `<id>.json` has this form.
"""

HIDDEN_MARK = "~"
"""Part of the names of temporary, deleted and archived files. No result has this character in its name, so readers skip
these files.
"""

MAX_ID_LENGTH = 200
"""Maximum length of an id, so that the longest name, `superseded-<id>-<n>.json.kept`, has at most 255 bytes."""

MAX_FILE_BYTES = 1024**3
"""Default maximum size of a result file in bytes, checked before reading. 10 million latency samples need 300 MB."""

MAX_FILE_SIZE_ENV = "LLM_ENERGY_MEASURE_MAX_FILE_SIZE"
"""Environment variable with the maximum size of a result file, for example `4GB`. Set by `--max-file-size`."""

MAX_RECORD_DEPTH = 100
"""Maximum nesting depth of a result file, checked before parsing. Real records have 5 levels."""

EXTRA_PACKAGES = {
    "amd": "amdsmi",
    "analytics": "duckdb pyarrow",
    "cloud": "obstore",
    "codecarbon": "codecarbon",
    "dask": "distributed",
    "hdf5": "h5py",
    "nvidia": "nvidia-ml-py",
    "parquet": "pyarrow",
    "report": "matplotlib jinja2",
    "zeus": "zeus",
}
"""Arguments of `pip install` for each extra. Messages name the packages, because no package index has this project."""

CODECARBON_COLUMN_NAMES = (
    *("timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate"),
    *("cpu_power", "gpu_power", "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed"),
    *("water_consumed", "country_name", "country_iso_code", "region", "cloud_provider", "cloud_region"),
    *("os", "python_version", "codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model"),
    *("longitude", "latitude", "ram_total_size", "tracking_mode", "cpu_utilization_percent"),
    *("gpu_utilization_percent", "ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue"),
)
"""Columns of CodeCarbon's `emissions.csv`, in the order of CodeCarbon 3.3.0."""
