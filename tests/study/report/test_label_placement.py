"""Labels overlap neither each other nor a marker."""

from mergetool.study.report.label_placement import place_labels


def test_labels_overlap_neither_each_other_nor_a_marker():
    points = [(100 + 7 * at, 100 + 5 * (at % 3)) for at in range(20)]
    labels = place_labels(points, [(40, 10)] * 20, range(20), (0, 0, 400, 300), [4.0] * 20)
    assert len(labels) == 20
    boxes = [label.box for label in labels]
    for at, one in enumerate(boxes):
        for other in boxes[:at]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        for x, y in points:
            assert not (one[0] < x < one[2] and one[1] < y < one[3])
