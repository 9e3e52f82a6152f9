"""What a measurement is: frozen records and the arithmetic on them. No I/O, no logging.

See `README.md` beside this file for a tour.
"""
