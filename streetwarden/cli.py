"""The command ``streetwarden``: one entry for every part of the system."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from rules.declared import Refused

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="A city district's streets watch themselves.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
gateway_app = typer.Typer(no_args_is_help=True, help="The process on the box in the street cabinet.")
cloud_app = typer.Typer(no_args_is_help=True, help="Ingest, stores, work orders and the district centre's page.")
sim_app = typer.Typer(no_args_is_help=True, help="The simulated district.")
rules_app = typer.Typer(no_args_is_help=True, help="Rules: check them.")
profile_app = typer.Typer(no_args_is_help=True, help="Device profiles: check them.")
app.add_typer(gateway_app, name="gateway")
app.add_typer(cloud_app, name="cloud")
app.add_typer(sim_app, name="sim")
app.add_typer(rules_app, name="rules")
app.add_typer(profile_app, name="profile")

Configuration = Annotated[Path, typer.Argument(help="the process's TOML file", exists=True, dir_okay=False)]


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="which storm")] = 1,
    speed: Annotated[float, typer.Option(help="city seconds in a second on the wall")] = 30.0,
    timeseries: Annotated[str, typer.Option(help="influx://HOST:PORT/DATABASE, or empty for the embedded store")] = "",
    port: Annotated[int, typer.Option(help="port of the page; 0 takes a free one")] = 0,
    lan: Annotated[bool, typer.Option(help="let phones on this network open the crew's page")] = False,
    headless: Annotated[bool, typer.Option(help="without a person; needs --for")] = False,
    length: Annotated[float, typer.Option("--for", help="seconds to run; 0 until Ctrl-C")] = 0.0,
    report: Annotated[Path | None, typer.Option(help="write the report of a headless run here, as JSON")] = None,
    keep: Annotated[Path | None, typer.Option(help="keep logs and data in this folder")] = None,
) -> None:
    """Run a simulated district, two gateways and the cloud on this machine; print one address."""
    from streetwarden.demo import Options, run

    if headless and length <= 0:
        raise typer.BadParameter("a run without a person needs its length: --headless --for 90")
    options = Options(seed, speed, timeseries, port, lan, headless, length, report, keep)
    raise typer.Exit(_run(run(options)))


@gateway_app.command("run")
def gateway_run(configuration: Configuration) -> None:
    """Poll, judge, keep and send, for years."""
    from gateway.process import main

    main([str(configuration)])


@gateway_app.command("check")
def gateway_check(configuration: Configuration) -> None:
    """Read the configuration and all it names; say what is wrong and where."""
    from gateway.config import load_config

    load_config(configuration)
    typer.echo(f"{configuration}: in order")


@cloud_app.command("run")
def cloud_run(configuration: Configuration) -> None:
    """Take batches in, open work orders, serve the page."""
    from cloud.process import main

    main([str(configuration)])


@sim_app.command("run")
def sim_run(configuration: Configuration) -> None:
    """Simulate a district behind real Modbus TCP and MQTT."""
    from firmware_sim.process import main

    main([str(configuration)])


@rules_app.command("check")
def rules_check(folder: Annotated[Path, typer.Argument(help="a folder of rule packs", exists=True)]) -> None:
    """Load every pack and replay each rule's own examples."""
    from rules.check import check_examples
    from rules.rule import load_rules

    failed = 0
    for file in sorted(folder.glob("*.toml")):
        findings = check_examples(load_rules(file.read_text(encoding="utf-8"), str(file)), str(file))
        failed += len(findings)
        for finding in findings:
            typer.echo(finding)
        typer.echo(f"{file}: {'in order' if not findings else f'{len(findings)} examples disagree'}")
    raise typer.Exit(1 if failed else 0)


@profile_app.command("check")
def profile_check(folder: Annotated[Path, typer.Argument(help="a folder of profiles", exists=True)]) -> None:
    """Load every profile and plan its reads."""
    from edge.profile import load_profile

    for file in sorted(folder.glob("*.toml")):
        load_profile(file.read_text(encoding="utf-8"), str(file))
        typer.echo(f"{file}: in order")


def _run(main: Coroutine[Any, Any, int]) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def main() -> None:
    """Entry point; what was refused is shown as one line, with its place and cure."""
    try:
        app()
    except Refused as error:
        typer.echo(f"refused: {error}", err=True)
        raise SystemExit(2) from error
