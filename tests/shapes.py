"""The type checker that the tests put around the library's functions: what signatures say of shapes must hold."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for every other type checker
