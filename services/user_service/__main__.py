from shared.serve import serve
from user_service.settings import UserSettings

serve("user_service", UserSettings)
