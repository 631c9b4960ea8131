"""`weitiao init`: from a user's own file to a commented config. Every decision is a printed line with its reason.

walk        the command, from file to config
table       the file as columns, and what each of them holds
names       what a column's name says, in English and Chinese
labels      which columns hold labels, one or several in a cell
roles       the task, and which column is its text, label, answer …
counts      what the rows are: empty, repeated, contradicting, how long, in which language
proposals   the rules for model, epochs, lengths …, as one table
written     the YAML
"""
