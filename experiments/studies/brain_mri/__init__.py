"""The brain-MRI study: why a tumour classifier sees a meningioma in a template without a tumour."""
