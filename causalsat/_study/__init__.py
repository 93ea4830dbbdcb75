"""What :class:`causalsat.study.Study` is made of: reading units, resolving columns, checking, reporting."""
