"""Everything that depends on hardware; finds profiles of devices by their names.

Built-in profiles are the .toml files in this package's folders, one folder for each family. Another package adds its
own by an entry point in the group "edgecompress_targets" whose value is a package that holds .toml files.
"""

from edgecompress_targets.catalogue import profile_files
from edgecompress_targets.operators import OPERATOR_SETS
from edgecompress_targets.profile import Profile

__all__ = ["OPERATOR_SETS", "Profile", "profile_files"]
