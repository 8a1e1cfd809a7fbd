"""The command line: commands, the pipeline behind them, and the report."""
