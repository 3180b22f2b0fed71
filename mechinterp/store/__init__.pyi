from .manifest import StoreManifest as StoreManifest
from .reader import ActivationStore as ActivationStore
