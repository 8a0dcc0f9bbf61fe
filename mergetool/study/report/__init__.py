"""What a study leaves for its reader.

outputs.py         all of it, from a result
html_report.py     report.html, one file
pareto_picture.py  pareto.png; picture_points.py: what is joined; captions.py, label_placement.py: the words in it
knob_curves.py     KNOB.png: metrics over a swept knob
style.py           colours, markers and axis names of all pictures
card_scores.py     the scores of one result, for its model card
"""
