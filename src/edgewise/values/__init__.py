"""Plain values that all else uses: nests of tensors, arguments, amounts, files, spelling."""
