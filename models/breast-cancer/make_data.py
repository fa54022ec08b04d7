"""Writes train.csv and test.csv from scikit-learn's copy of the data set.

    pip install -r requirements.txt && python make_data.py

Features become numbers in [-1, 1]: the distance from the mean in units of three standard deviations (both over the
training rows), cut off at 1. Both files have a line of names, then a line for each tumour: the label (1: benign,
0: malignant) and the features with 4 decimals.
"""

from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

data = load_breast_cancer()
train, test, train_labels, test_labels = train_test_split(
    data.data, data.target, test_size=0.2, random_state=1, stratify=data.target
)
mean, deviation = train.mean(axis=0), train.std(axis=0)
for name, rows, labels in [("train", train, train_labels), ("test", test, test_labels)]:
    scaled = ((rows - mean) / (3 * deviation)).clip(-1, 1)
    lines = [",".join(["benign", *data.feature_names])]
    lines += [",".join([str(label), *(f"{x:.4f}" for x in row)]) for label, row in zip(labels, scaled)]
    Path(__file__).with_name(f"{name}.csv").write_text("\n".join(lines) + "\n")
