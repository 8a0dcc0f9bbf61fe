"""The command line: parse, call one library function, print. Nothing else imports Typer or prints."""
