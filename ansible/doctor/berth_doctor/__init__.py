"""The checks of ansible/doctor.yml.

asked.py       the input of host.py and outside.py, from the inventory's values
host.py        collects facts on the host
outside.py     collects facts from outside the host's network
controller.py  collects facts on the controller
judge*.py      turn facts into lines: pure functions, one for each subject
lines.py       a line of the table
table.py       formats the table
"""
