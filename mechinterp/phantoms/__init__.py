"""Images rendered from physical parameters: the ground truth that everything else is scored against.

>>> from mechinterp.phantoms.datasets import FundusStudy, fundus_phantoms
>>> eyes = fundus_phantoms(FundusStudy(patients=4, images_per_patient=1))
>>> eyes.phantom(0).counterfactual(illumination=0.8).parameters.illumination
0.8
"""
