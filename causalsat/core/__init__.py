"""Checked inputs, columns, tables and files: what every other room stands on."""
