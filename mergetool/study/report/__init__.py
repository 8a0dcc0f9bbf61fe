"""What a study leaves for its reader.

outputs.py         all of it, from a result
html_report.py     report.html, one file; choice_words.py, reader.py: its sentences, and those of the terminal
pareto_picture.py  pareto.png; picture_points.py: what is joined; captions.py, label_placement.py: the words in it
front_svg.py       the front inside the report: hover, focus, click
setting_curves.py     SETTING.png: metrics over a swept setting
style.py           colours, markers and axis names of all pictures
card_scores.py     the scores of one result, for its model card
"""
