"""DICOM: files, physics of their pixels, geometry, acquisition, segmentations. No identifier leaves this package."""
