"""What every other package uses: types, plug-in records, errors, configuration, random seeds, statistics, text."""
