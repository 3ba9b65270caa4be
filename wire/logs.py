"""One shape for every process's log: a line of ``key=value`` on standard error, times in UTC."""

import sys

import structlog


def configure() -> None:
    """Set up the log of this process; values of local variables never stand in it."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
