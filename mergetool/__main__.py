"""python -m mergetool"""

from mergetool.cli.main import main

main()
