"""The command ``streetwarden``: one entry for every part of the system."""

import asyncio
from collections.abc import Coroutine
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import uvloop

from rules.declared import Refused
from wire.files import declared_in, read
from wire.refusing import refusing

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
profile_app = typer.Typer(no_args_is_help=True, help="Device profiles: check them, hold them against a live device.")
bus_app = typer.Typer(no_args_is_help=True, help="Modbus lines and endpoints: find what is wired.")
app.add_typer(gateway_app, name="gateway")
app.add_typer(cloud_app, name="cloud")
app.add_typer(sim_app, name="sim")
app.add_typer(rules_app, name="rules")
app.add_typer(profile_app, name="profile")
app.add_typer(bus_app, name="bus")

Configuration = Annotated[Path, typer.Argument(help="the process's TOML file")]


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Tell the version and end.")] = False,
) -> None:
    """A city district's streets watch themselves."""
    if version:
        typer.echo(metadata.version("streetwarden"))
        raise typer.Exit


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="which storm", min=0)] = 1,
    speed: Annotated[float, typer.Option(help="city seconds in a second on the wall", min=1, max=120)] = 30.0,
    timeseries: Annotated[str, typer.Option(help="influx://HOST:PORT/DATABASE, or empty for the embedded store")] = "",
    port: Annotated[int, typer.Option(help="port of the page; 0 takes a free one", min=0, max=65535)] = 0,
    lan: Annotated[bool, typer.Option(help="let phones on this network open the crew's page")] = False,
    headless: Annotated[bool, typer.Option(help="without a person; needs --for")] = False,
    length: Annotated[float, typer.Option("--for", help="seconds to run; 0 until Ctrl-C", min=0)] = 0.0,
    report: Annotated[Path | None, typer.Option(help="write the report of a headless run here, as JSON")] = None,
    keep: Annotated[Path | None, typer.Option(help="keep logs and data in this new folder")] = None,
) -> None:
    """Run a simulated district, two gateways and the cloud on this machine; print one address."""
    from streetwarden.demo import Options, run

    if headless and length <= 0:
        raise Refused("--headless", "a run without a person needs its length, as in --headless --for 90")
    if report is not None and not headless:
        raise Refused("--report", "a report is of a run without a person: add --headless --for 90")
    if report is not None and not report.resolve().parent.is_dir():
        raise Refused(f"--report {report}", "the folder it should be written to does not exist")
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


@cloud_app.command("check")
def cloud_check(configuration: Configuration) -> None:
    """Read the configuration, its district and its rules; say what is wrong and where."""
    from cloud.config import load_config

    config = load_config(configuration)
    config.load_district()
    config.load_rules()
    typer.echo(f"{configuration}: in order")


@app.command("order")
def order(
    configuration: Annotated[Path, typer.Argument(help="the cloud's TOML file, for its broker and account")],
    gateway: Annotated[str, typer.Argument(help="whose device it is")],
    device: Annotated[str, typer.Argument()],
    command: Annotated[str, typer.Argument(help="on, off, dim, ... as the device's profile names it")],
    value: Annotated[float | None, typer.Argument(help="where the command takes one")] = None,
    within: Annotated[float, typer.Option(help="wall seconds to wait for the answer", min=1)] = 60.0,
) -> None:
    """Have a gateway switch a lamp, a board or a beacon, and see that it did; its owner must have allowed it."""
    from streetwarden import ordering

    raise typer.Exit(_run(ordering.order(configuration, gateway, device, command, value, within)))


@sim_app.command("serve")
def sim_serve(configuration: Configuration) -> None:
    """Simulate a district behind real Modbus and MQTT, until stopped."""
    from firmware_sim.process import main

    main([str(configuration)])


@sim_app.command("run")
def sim_run(
    scenario: Annotated[str, typer.Argument(help="a shipped scenario's name, or a path")],
    seed: Annotated[int | None, typer.Option(help="another than the scenario's own", min=0)] = None,
    speed: Annotated[
        float, typer.Option(help="city seconds a second over real sockets; 0: fast time", min=0, max=120)
    ] = 0.0,
    length: Annotated[str, typer.Option("--for", help="only so much of it, as in 3d")] = "",
    device: Annotated[str, typer.Option(help="tell everything of this device")] = "",
    rules: Annotated[Path | None, typer.Option(help="other rules, a file or a folder")] = None,
    profiles: Annotated[Path | None, typer.Option(help="other device profiles for the gateways, a folder")] = None,
    keep: Annotated[Path, typer.Option(help="the run's folder")] = Path("build/run"),
) -> None:
    """Run one scenario from the world to work orders and score it; exit code 1 when anything is amiss."""
    from streetwarden.trial import run_trial, tell, trial_of

    told = run_trial(trial_of(scenario, seed, keep, speed, length, rules, profiles, device))
    raise typer.Exit(130 if told is None else tell(keep, device))


@sim_app.command("score")
def sim_score(
    run: Annotated[Path, typer.Argument(help="the folder of a run")],
    html: Annotated[Path | None, typer.Option(help="write its page with timelines here")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write its figures here")] = None,
) -> None:
    """Hold a run against its truth: found, missed, late, misfires, delays, samples lost or doubled."""
    from rich.console import Console

    from streetwarden.scoring import score_folder, show

    scored = score_folder(run, html, json_file)
    show(scored, Console())
    raise typer.Exit(0 if scored.in_order() else 1)


@sim_app.command("capture")
def sim_capture(
    device: Annotated[str, typer.Option(help="the device that told it")],
    begin: Annotated[str, typer.Option("--from", help="when it began: ISO 8601 with zone")],
    end: Annotated[str, typer.Option("--to", help="when it had ended")],
    truth: Annotated[str, typer.Option(help="what it was: misfire:truck, real:cover, …")],
    district: Annotated[Path, typer.Option(help="the district file that declares the device")],
    hazard: Annotated[str, typer.Option(help="what a misfire looked like, as in cover")] = "",
    api: Annotated[str, typer.Option(help="the district centre's address")] = "http://127.0.0.1:8080",
    folder: Annotated[Path | None, typer.Option("--into", help="the scenario's folder")] = None,
) -> None:
    """Turn stored samples of a real event into a scenario that the gate runs for ever."""
    from streetwarden.capture import Capture, capture_event

    capture_event(Capture(device, begin, end, truth, hazard, district, api, folder))


@sim_app.command("load")
def sim_load(
    configuration: Configuration,
    district: Annotated[
        Path | None, typer.Argument(help="write the district that the cloud must know, and end")
    ] = None,
) -> None:
    """Speak the uplink contract as a thousand gateways, for load."""
    from firmware_sim.load import main

    main([str(configuration), *([str(district)] if district else [])])


def _gate_commands() -> None:
    """Add the gate's commands, whose options stand with them."""
    from streetwarden.gate import commands

    for name, command in (
        ("city", commands.city),
        ("gate", commands.city_gate),
        ("city-update", commands.city_update),
        ("city-unseen", commands.city_unseen),
    ):
        sim_app.command(name)(command)


@rules_app.command("check")
def rules_check(
    packs: Annotated[Path | None, typer.Argument(help="a rule pack or a folder of them; the shipped catalog")] = None,
) -> None:
    """Load every pack and replay each rule's own examples; exit code 1 when one disagrees with its rule."""
    from edge.profile import load_profiles
    from rules.check import check_examples
    from rules.rule import load_rules

    metrics: dict[str, set[str]] = {}
    for profile in load_profiles().values():
        known = metrics.setdefault(profile.profile.kind, set())
        known.update(quantity.metric for quantity in profile.quantities)
    failed = 0
    for file in declared_in(packs or resources.files("rules") / "catalog"):
        findings = check_examples(load_rules(read(file), str(file)), str(file), metrics)
        failed += len(findings)
        for finding in findings:
            typer.echo(finding)
        typer.echo(f"{file}: {f'{len(findings)} to mend' if findings else 'in order'}")
    raise typer.Exit(1 if failed else 0)


@profile_app.command("check")
def profile_check(
    profiles: Annotated[Path | None, typer.Argument(help="a profile or a folder of them; the shipped ones")] = None,
) -> None:
    """Load every profile; tell what it holds and what its maintainer should know."""
    from edge.profile import load_profiles
    from streetwarden import commissioning

    for profile in load_profiles(profiles).values():
        typer.echo(commissioning.check(profile))


@profile_app.command("probe")
def profile_probe(
    host: Annotated[str, typer.Argument(help="a host, a serial device, or a message: a file, or - for standard input")],
    profile: Annotated[str, typer.Argument(help="the profile's id, or its file")],
    port: Annotated[int, typer.Option(help="of the host")] = 502,
    unit: Annotated[int, typer.Option(help="unit id", min=0, max=255)] = 1,
    base: Annotated[int, typer.Option(help="how much further on its registers are", min=0)] = 0,
    framing: Annotated[Literal["tcp", "rtu"], typer.Option(help="of the host")] = "tcp",
    baud: Annotated[int, typer.Option(help="of the serial device")] = 9600,
    parity: Annotated[Literal["N", "E", "O"], typer.Option(help="of the serial device")] = "N",
    stop_bits: Annotated[int, typer.Option(help="of the serial device", min=1, max=2)] = 1,
    install: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, a number of the installation")] = None,
    profiles: Annotated[Path | None, typer.Option(help="a folder of profiles instead of the shipped ones")] = None,
    clearing: Annotated[bool, typer.Option("--clearing", help="read also what reading sets to 0")] = False,
) -> None:
    """Read a live device, or one message, and show raw words, values and doubts; exit code 1 with doubts, 2 unread."""
    from streetwarden import commissioning

    chosen, numbers = commissioning.profile_of(profile, profiles), commissioning.numbers_of(install or ())
    if host == commissioning.STDIN or not chosen.point:
        raise typer.Exit(commissioning.probe_told(host, chosen, numbers))
    address = commissioning.address_of(host, port=port, framing=framing, baud=baud, parity=parity, stop_bits=stop_bits)
    raise typer.Exit(commissioning.probe_device(address, unit, chosen, base, numbers, clearing=clearing))


@bus_app.command("scan")
def bus_scan(
    port: Annotated[str, typer.Argument(help="a serial device, or HOST:PORT")],
    units: Annotated[str, typer.Option(help="unit ids to try, as in 1-32 or 1-8,20")] = "1-247",
    framing: Annotated[Literal["tcp", "rtu"], typer.Option(help="of HOST:PORT")] = "tcp",
    baud: Annotated[int | None, typer.Option(help="only this speed of a serial device")] = None,
    parity: Annotated[Literal["N", "E", "O"] | None, typer.Option(help="only this parity of a serial device")] = None,
    timeout: Annotated[float, typer.Option(help="seconds that the slowest device takes to answer", min=0.01)] = 0.5,
    profiles: Annotated[Path | None, typer.Option(help="a folder of profiles instead of the shipped ones")] = None,
) -> None:
    """Find which unit ids answer, at which speed, and what they may be, beside a gateway that polls the same line."""
    from edge.profile import load_profiles
    from streetwarden import commissioning

    addresses = commissioning.addresses_of(port, framing, baud, parity, timeout)
    raise typer.Exit(commissioning.scan_bus(addresses, commissioning.units_of(units), load_profiles(profiles)))


def _run(main: Coroutine[Any, Any, int]) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def main() -> None:
    """Entry point; what was refused is shown as one line, with its place and cure, and ends with 2."""
    with refusing():
        _gate_commands()
        app()
