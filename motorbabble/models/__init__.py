"""Networks: tensors in, tensors out. They know no robot, no file and no tracker."""
