"""A small CNN and a small ViT trained on the fundus phantom: known data, known rule, shared by tests and studies.

>>> from mechinterp.reference.training import load_reference, train_reference  # doctest: +SKIP
>>> model = load_reference("vit")  # doctest: +SKIP
"""
