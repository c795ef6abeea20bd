"""A classifier of real images, which measures whether samples show their class."""

import numpy as np

from ul.core import extras


class SvmClassifier:
    """A support vector machine (RBF kernel) on pixels, trained on real images."""

    name = "sklearn SVC(rbf, C=10) on pixels"

    def __init__(self, image: np.ndarray, label: np.ndarray):
        svm = extras.require(
            "sklearn.svm", "A classifier of real images", "demo", "scikit-learn"
        )
        self._model = svm.SVC(C=10.0, gamma="scale").fit(self._flat(image), label)

    @staticmethod
    def _flat(image: np.ndarray) -> np.ndarray:
        return image.reshape(len(image), -1).astype(np.float64) / 255.0

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the predicted class [N] of each image."""
        return self._model.predict(self._flat(image))

    def accuracy(self, image: np.ndarray, label: np.ndarray) -> float:
        """Return the fraction of images whose predicted class is their label."""
        return float(np.mean(self.predict(image) == label))

    def decision_scores(self, image: np.ndarray) -> np.ndarray:
        """Return a score per class [N, classes]; the predicted class has the highest."""
        return self._model.decision_function(self._flat(image))
