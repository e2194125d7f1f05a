"""What converters print and warn of is kept off the terminal, and no longer than their block."""

import logging
import warnings

from edgewise.formats.common.quiet import suppress_warnings


def test_a_block_within_a_block_ends_for_itself_alone(caplog):
    with suppress_warnings():
        with suppress_warnings():
            logging.getLogger("tool").warning("inner")
        logging.getLogger("tool").warning("outer")
        warnings.warn("outer", UserWarning, stacklevel=1)
    logging.getLogger("tool").warning("after")
    assert [record.message for record in caplog.records] == ["after"]
