"""What ansible/doctor.yml asks, and what it makes of the answers.

asked.py       what the programs are told, from the inventory's values
host.py        runs on the host
outside.py     runs where the internet is
controller.py  runs on the controller
judge*.py      judge what they found: pure functions, one for each subject
lines.py       a line of the table
table.py       shows the lines
"""
