"""Names and limits that several floors share: schema version, folders, file-name patterns."""

# History of the format:
# - before 2.0.0: no version was written; one folder of up to eight files an experiment. No migration: such folders are
#   imported, not loaded.
# - 2.0.0: one JSON file a process and one an experiment. Optional fields added since then (host, GPU UUID, scope,
#   provenance, energy window, clock, launcher, origin, status, phases, sensors, library versions, sources,
#   completeness, attribution, findings) don't change the version: a reader that does not know them loses nothing it
#   knew.
#   Start, model and configuration may be null, as imported files do not always tell them.
# A change that older readers would misread gets a new major version, and a step in `domain.schema.MIGRATIONS`.
SCHEMA_VERSION = "2.0.0"
"""Version written into every new record."""

RESULTS_DIR_ENV = "LLM_ENERGY_MEASURE_RESULTS_DIR"
"""Environment variable that names the results directory where nobody else does."""

DEFAULT_RESULTS_DIR = "results"
"""Results directory, relative to the working directory, where nothing names another."""

RAW_DIR = "raw"
AGGREGATED_DIR = "aggregated"
TAGS_DIR = "tags"

MANIFEST_NAME = "manifest.json"

MAX_PROCESSES = 1_000_000
"""Processes of an experiment; more are no reading, and would make the list of the missing endless."""

PROCESS_FILE_PATTERN = r"process_(0|[1-9][0-9]{0,5})\.json"
"""Only such a name is ever taken for a raw result; everything else in the folder is left alone."""

SUPERSEDED_AGGREGATE_PATTERN = r"superseded-.+-[0-9]+\.json"
"""Kept older aggregates; an experiment id may not look like one (see `security`)."""

HIDDEN_MARK = "~"
"""Stands in the name of every unfinished file of ours and in no id: a reader skips it, a sweep finds it."""

MAX_ID_LENGTH = 200
"""Characters of a sanitised id: file systems hold 255, and suffixes such as `superseded-<id>-<n>.json` need room."""

MAX_RECORD_BYTES = 512 * 1024 * 1024
"""A larger file is refused before it is read: 10 million latency samples take about 200 MB."""

MAX_RECORD_DEPTH = 100
"""Levels of nesting; real records have 5. A deeper file is refused before it is parsed."""

EXTRA_PACKAGES = {
    "amd": "amdsmi",
    "analytics": "duckdb pyarrow",
    "codecarbon": "codecarbon",
    "hdf5": "h5py",
    "nvidia": "nvidia-ml-py",
    "parquet": "pyarrow",
    "zeus": "zeus",
}
"""Arguments of `pip install` for each extra. Messages name the packages: the project is on no package index."""

CODECARBON_COLUMN_NAMES = (
    *("timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate"),
    *("cpu_power", "gpu_power", "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed"),
    *("water_consumed", "country_name", "country_iso_code", "region", "cloud_provider", "cloud_region"),
    *("os", "python_version", "codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model"),
    *("longitude", "latitude", "ram_total_size", "tracking_mode", "cpu_utilization_percent"),
    *("gpu_utilization_percent", "ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue"),
)
"""Columns of CodeCarbon's `emissions.csv` in the order of its version 3.3.0, which is read and written."""
